-- Signals: who outside says something of devices, what they said, and the keys of what is told to others.

-- At most SOURCES_MAX for each tenant that are not deleted. One that is goes with its last statement.
CREATE TABLE signals_source (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- JSON, without a secret.
    definition TEXT NOT NULL,
    max_age_seconds BIGINT NOT NULL,
    -- Sealed, as is the one before it, which is good until then.
    secret BYTEA,
    secret_before BYTEA,
    secret_before_until BIGINT,
    revision BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (tenant_id, source_id)
);

CREATE UNIQUE INDEX signals_source_name ON signals_source (tenant_id, name) WHERE deleted_at IS NULL;

-- A message names its source alone.
CREATE UNIQUE INDEX signals_source_id ON signals_source (source_id);

-- What is counted of a source. One row for each.
CREATE TABLE signals_tally (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    received BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    repeated BIGINT NOT NULL,
    unmatched BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    taken_at BIGINT,
    error TEXT,
    error_at BIGINT,
    PRIMARY KEY (tenant_id, source_id)
);

-- What a source says of a device: one row, which newer statements change.
CREATE TABLE signals_said (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    source_id UUID NOT NULL,
    verdict TEXT,
    verdict_at BIGINT,
    risk TEXT,
    risk_at BIGINT,
    user_risk TEXT,
    user_risk_at BIGINT,
    assurance TEXT,
    assurance_at BIGINT,
    detail TEXT,
    observed_at BIGINT NOT NULL,
    session_revoked_at BIGINT,
    credential_changed_at BIGINT,
    -- When whoever reads it is to be evaluated: at once after a change, and when something of it gets too old.
    due_at BIGINT,
    PRIMARY KEY (tenant_id, device_id, source_id)
);

CREATE INDEX signals_said_due ON signals_said (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX signals_said_source ON signals_said (tenant_id, source_id, observed_at);

-- Ids of messages that were taken, for as long as their messages would be read: at most SEEN_MAX for each source.
CREATE TABLE signals_seen (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    message_sha256 BYTEA NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, source_id, message_sha256)
);

CREATE INDEX signals_seen_age ON signals_seen (tenant_id, source_id, seen_at);

-- Subjects that no device is known by: the newest UNMATCHED_MAX for each source.
CREATE TABLE signals_unmatched (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    times BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, source_id, subject)
);

CREATE INDEX signals_unmatched_age ON signals_unmatched (tenant_id, source_id, last_at);

-- What arrived last: the newest ARRIVALS_MAX for each tenant, for a week.
CREATE TABLE signals_arrival (
    tenant_id UUID NOT NULL,
    arrival_id UUID NOT NULL,
    source_id UUID NOT NULL,
    arrived_at BIGINT NOT NULL,
    -- Such as risk-level-change, or message.
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    device_id UUID,
    devices BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (tenant_id, arrival_id)
);

-- Keys with which statements about compliance are signed. A few for each tenant.
CREATE TABLE signals_key (
    tenant_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    -- Sealed.
    secret BYTEA NOT NULL,
    -- The uncompressed point.
    point BYTEA NOT NULL,
    -- From when on it signs. It is shown before, so that whoever keeps key sets has it by then.
    active_from BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
);

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write signal:read signal:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write';
