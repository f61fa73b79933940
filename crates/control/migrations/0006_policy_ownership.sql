-- Policies that a document describes, and policies that were put away.

ALTER TABLE policy_policy ADD COLUMN managed_by TEXT;
ALTER TABLE policy_policy ADD COLUMN archived_at BIGINT;

-- Refused attempts to change what is signed, for the overview.
CREATE INDEX audit_entry_refused ON audit_entry (tenant_id, entry_id)
    WHERE action IN ('policy.change_refused', 'policy.bundle_refused');
