-- Secrets: which there are, how old they are, and the versions of the keys that the server rotates.

-- One row for each secret. Those of the installation are rows of its first tenant. At most SECRETS_MAX for each tenant.
CREATE TABLE secrets_record (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    -- Who has it or uses it, for people.
    owner TEXT NOT NULL,
    -- `server`, `holder` or `operator`.
    rotated_by TEXT NOT NULL,
    -- Where its newest value is kept.
    place TEXT NOT NULL,
    version BIGINT NOT NULL,
    rotated_at BIGINT NOT NULL,
    period_days BIGINT NOT NULL,
    -- Until when the value before is good as well.
    overlap_until BIGINT,
    -- When somebody asked for a rotation before its time.
    asked_at BIGINT,
    -- When a node last said that it has it. Such a row goes when the node says nothing for a while.
    seen_at BIGINT,
    -- Why the last attempt to rotate it failed.
    error TEXT,
    PRIMARY KEY (tenant_id, name)
);

-- Versions of keys that every node has to know. A retired one goes after a while.
CREATE TABLE secrets_version (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- Which store holds it, and by which name of a version.
    place TEXT NOT NULL,
    store_version TEXT NOT NULL,
    public_key BYTEA,
    created_at BIGINT NOT NULL,
    -- From when on it is used.
    activates_at BIGINT NOT NULL,
    -- From when on it is not accepted any more.
    retires_at BIGINT,
    PRIMARY KEY (tenant_id, name, version)
);

-- Values of the embedded store, sealed with the key of the key folder. A value goes with its version.
CREATE TABLE secrets_value (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
);

-- The secret of a client that is good as well for a while, and when the newest one was made.
ALTER TABLE access_client ADD COLUMN previous_sha256 BYTEA;
ALTER TABLE access_client ADD COLUMN previous_until BIGINT;

-- The secret of a destination that signs as well for a while.
ALTER TABLE alerts_destination ADD COLUMN previous_secret BYTEA;
ALTER TABLE alerts_destination ADD COLUMN previous_until BIGINT;

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write access:read access:write session:write sso:write';
