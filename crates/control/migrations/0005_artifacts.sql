-- When a bundle was brought to the artifact store; NULL while it was not.
ALTER TABLE policy_version ADD COLUMN artifact_at BIGINT;

CREATE INDEX policy_version_unstored ON policy_version (sequence) WHERE artifact_at IS NULL;
