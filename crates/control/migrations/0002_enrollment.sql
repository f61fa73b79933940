-- How a device proved itself, what it claims, and what a tenant asks of those who enroll.

ALTER TABLE devices_device ADD COLUMN ownership TEXT NOT NULL DEFAULT 'company';

ALTER TABLE devices_device ADD COLUMN protocol TEXT NOT NULL DEFAULT 'agent';

ALTER TABLE devices_device ADD COLUMN attestation TEXT NOT NULL DEFAULT '{}';

ALTER TABLE devices_device ADD COLUMN merged_into UUID;

UPDATE devices_device SET attestation_level = 'unattested' WHERE attestation_level = 'none';

CREATE INDEX devices_device_owner ON devices_device (tenant_id, owner);

CREATE INDEX devices_device_quarantined ON devices_device (tenant_id, device_id) WHERE state = 'quarantined';

CREATE INDEX devices_device_enrolled ON devices_device (tenant_id, enrolled_at);

-- What each device claims, in quarantine too. `shared` marks a claim that an operator lets two devices make.
CREATE TABLE devices_claim (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    PRIMARY KEY (tenant_id, device_id, kind, value)
);

CREATE INDEX devices_claim_value ON devices_claim (tenant_id, kind, value);

CREATE INDEX devices_claim_tpm ON devices_claim (value) WHERE kind = 'tpm_ek';

INSERT INTO devices_claim (tenant_id, device_id, kind, value, shared)
    SELECT tenant_id, device_id, kind, value, FALSE FROM devices_hardware;

-- A TPM belongs to one device of one tenant of the installation.
CREATE UNIQUE INDEX devices_hardware_tpm ON devices_hardware (value) WHERE kind = 'tpm_ek';

ALTER TABLE enrollment_token ADD COLUMN protocol TEXT NOT NULL DEFAULT 'agent';

ALTER TABLE enrollment_token ADD COLUMN challenge_sha256 BYTEA;

ALTER TABLE enrollment_token ADD COLUMN subject TEXT;

ALTER TABLE enrollment_token ADD COLUMN ownership TEXT NOT NULL DEFAULT 'company';

ALTER TABLE enrollment_token ADD COLUMN attestation TEXT NOT NULL DEFAULT '';

CREATE UNIQUE INDEX enrollment_token_challenge ON enrollment_token (challenge_sha256);

ALTER TABLE enrollment_session ADD COLUMN channel_binding TEXT NOT NULL DEFAULT 'none';

ALTER TABLE enrollment_session ADD COLUMN offer TEXT;

CREATE TABLE enrollment_policy (
    tenant_id UUID PRIMARY KEY,
    document TEXT NOT NULL,
    version BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- Touched by each admission that has a limit to keep, so that two of them take turns.
    counted_at BIGINT NOT NULL
);

CREATE TABLE enrollment_android_status (
    tenant_id UUID PRIMARY KEY,
    document BYTEA NOT NULL,
    fetched_at BIGINT NOT NULL
);
