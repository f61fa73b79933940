-- One text for SQLite and PostgreSQL. A table's prefix names the slice that alone writes it.
-- Times are microseconds since the epoch, UTC.

CREATE TABLE access_tenant (
    tenant_id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE access_client (
    tenant_id UUID NOT NULL,
    client_id UUID NOT NULL,
    name TEXT NOT NULL,
    secret_sha256 BYTEA NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT,
    PRIMARY KEY (tenant_id, client_id),
    UNIQUE (tenant_id, name)
);

CREATE UNIQUE INDEX access_client_id ON access_client (client_id);

CREATE TABLE access_signin (
    tenant_id UUID NOT NULL,
    token_sha256 BYTEA NOT NULL,
    actor TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (tenant_id, token_sha256)
);

CREATE UNIQUE INDEX access_signin_token ON access_signin (token_sha256);

CREATE TABLE access_session (
    tenant_id UUID NOT NULL,
    session_sha256 BYTEA NOT NULL,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, session_sha256)
);

CREATE UNIQUE INDEX access_session_hash ON access_session (session_sha256);

CREATE TABLE access_idempotency (
    tenant_id UUID NOT NULL,
    actor TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 BYTEA NOT NULL,
    status BIGINT,
    response TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, actor, route, key)
);

CREATE INDEX access_idempotency_age ON access_idempotency (created_at);

CREATE TABLE audit_entry (
    tenant_id UUID NOT NULL,
    entry_id UUID NOT NULL,
    seq BIGINT,
    action TEXT NOT NULL,
    object_id TEXT NOT NULL,
    body BYTEA NOT NULL,
    seal BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, entry_id),
    UNIQUE (tenant_id, seq)
);

CREATE INDEX audit_entry_pending ON audit_entry (tenant_id, entry_id) WHERE seq IS NULL;

CREATE INDEX audit_entry_object ON audit_entry (tenant_id, object_id, seq);

CREATE TABLE audit_tile (
    tenant_id UUID NOT NULL,
    level BIGINT NOT NULL,
    tile_index BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, level, tile_index)
);

CREATE TABLE audit_tree (
    tenant_id UUID PRIMARY KEY,
    size BIGINT NOT NULL,
    note TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE devices_device (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    device_uuid UUID NOT NULL,
    serial TEXT,
    name TEXT NOT NULL,
    owner TEXT,
    platform TEXT NOT NULL,
    model TEXT,
    vendor TEXT,
    epoch BIGINT NOT NULL,
    state TEXT NOT NULL,
    quarantine_reason TEXT,
    attestation_level TEXT NOT NULL,
    spki BYTEA NOT NULL,
    spki_sha256 BYTEA NOT NULL,
    compliance_state TEXT NOT NULL,
    compliance_at BIGINT,
    agent_version TEXT,
    enrolled_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE INDEX devices_device_uuid ON devices_device (tenant_id, device_uuid);

CREATE UNIQUE INDEX devices_device_key ON devices_device (tenant_id, spki_sha256);

CREATE TABLE devices_hardware (
    tenant_id UUID NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    device_id UUID NOT NULL,
    PRIMARY KEY (tenant_id, kind, value)
);

CREATE INDEX devices_hardware_device ON devices_hardware (tenant_id, device_id);

CREATE TABLE devices_facts (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    facts TEXT NOT NULL,
    sha256 BYTEA NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE TABLE certificates_certificate (
    tenant_id UUID NOT NULL,
    serial TEXT NOT NULL,
    device_id UUID NOT NULL,
    epoch BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    der BYTEA NOT NULL,
    issued_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revocation_reason TEXT,
    PRIMARY KEY (tenant_id, serial)
);

CREATE INDEX certificates_certificate_device ON certificates_certificate (tenant_id, device_id, not_after);

CREATE TABLE enrollment_token (
    tenant_id UUID NOT NULL,
    jti UUID NOT NULL,
    device_uuid UUID NOT NULL,
    serial TEXT,
    owner TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    redeemed_at BIGINT,
    device_id UUID,
    spki_sha256 BYTEA,
    failures BIGINT NOT NULL,
    last_failure TEXT,
    PRIMARY KEY (tenant_id, jti)
);

CREATE INDEX enrollment_token_age ON enrollment_token (tenant_id, created_at);

CREATE TABLE enrollment_session (
    tenant_id UUID NOT NULL,
    session_sha256 BYTEA NOT NULL,
    jti UUID NOT NULL,
    token_sha256 BYTEA NOT NULL,
    nonce BYTEA NOT NULL,
    spki BYTEA NOT NULL,
    hardware TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, session_sha256)
);

CREATE UNIQUE INDEX enrollment_session_hash ON enrollment_session (session_sha256);

CREATE INDEX enrollment_session_age ON enrollment_session (expires_at);

CREATE INDEX enrollment_session_jti ON enrollment_session (tenant_id, jti);

CREATE TABLE commands_lane (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    epoch BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, epoch)
);

CREATE TABLE commands_command (
    tenant_id UUID NOT NULL,
    command_id UUID NOT NULL,
    operation_id UUID,
    device_id UUID NOT NULL,
    epoch BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    arguments TEXT NOT NULL,
    state TEXT NOT NULL,
    envelope TEXT NOT NULL,
    entry_id UUID NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    delivered_at BIGINT,
    completed_at BIGINT,
    attempts BIGINT NOT NULL,
    receipt TEXT,
    receipt_envelope TEXT,
    PRIMARY KEY (tenant_id, command_id),
    UNIQUE (tenant_id, device_id, epoch, sequence)
);

CREATE INDEX commands_command_open ON commands_command (tenant_id, device_id, sequence) WHERE completed_at IS NULL;

CREATE INDEX commands_command_expiry ON commands_command (expires_at) WHERE completed_at IS NULL;

CREATE TABLE policy_policy (
    tenant_id UUID NOT NULL,
    policy_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, policy_id),
    UNIQUE (tenant_id, name)
);

CREATE TABLE policy_version (
    tenant_id UUID NOT NULL,
    policy_id UUID NOT NULL,
    version TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    content_sha256 BYTEA NOT NULL,
    settings TEXT NOT NULL,
    rules TEXT NOT NULL,
    bundle_sha256 TEXT NOT NULL,
    bundle BYTEA NOT NULL,
    entry_id UUID NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, policy_id, version),
    UNIQUE (tenant_id, policy_id, sequence)
);

CREATE INDEX policy_version_bundle ON policy_version (tenant_id, bundle_sha256);

CREATE TABLE rollout_rollout (
    tenant_id UUID NOT NULL,
    rollout_id UUID NOT NULL,
    policy_id UUID NOT NULL,
    version TEXT NOT NULL,
    bundle_sha256 TEXT NOT NULL,
    generation BIGINT NOT NULL,
    entry_id UUID NOT NULL,
    state TEXT NOT NULL,
    current BOOLEAN NOT NULL,
    target TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, rollout_id),
    UNIQUE (tenant_id, generation)
);

CREATE INDEX rollout_rollout_current ON rollout_rollout (tenant_id, policy_id) WHERE current;

CREATE TABLE rollout_report (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    epoch BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    state_digest TEXT NOT NULL,
    state TEXT NOT NULL,
    settings TEXT NOT NULL,
    verdicts TEXT NOT NULL,
    envelope TEXT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE INDEX rollout_report_generation ON rollout_report (tenant_id, generation, state);

CREATE TABLE configuration_plan (
    tenant_id UUID NOT NULL,
    plan_sha256 BYTEA NOT NULL,
    document TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, plan_sha256)
);

CREATE INDEX configuration_plan_age ON configuration_plan (created_at);
