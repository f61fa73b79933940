-- Tenants that are made, paused and ended through the API.

-- What people call it besides its name. Empty where nobody said.
ALTER TABLE access_tenant ADD COLUMN display_name TEXT NOT NULL DEFAULT '';

-- active, suspended, closing, erasing.
ALTER TABLE access_tenant ADD COLUMN state TEXT NOT NULL DEFAULT 'active';

-- Since when.
ALTER TABLE access_tenant ADD COLUMN state_at BIGINT;

-- The keys with which the server signs for a tenant, sealed, and the first root document, which names them. One row for each tenant.
CREATE TABLE secrets_tenant_keys (
    tenant_id UUID NOT NULL,
    sealed BYTEA NOT NULL,
    envelope BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- Tenants whose first root document waits for its signatures: at most DRAFTS_MAX, for a day. They are rows of the operator's tenant.
CREATE TABLE tenants_draft (
    tenant_id UUID NOT NULL,
    draft_id UUID NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    document BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, draft_id),
    UNIQUE (tenant_id, name)
);

-- Tenants that end or have ended: the newest CLOSINGS_MAX. They are rows of the operator's tenant, so that they outlive the other.
CREATE TABLE tenants_closing (
    tenant_id UUID NOT NULL,
    closing_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- waiting, erasing, deleted.
    state TEXT NOT NULL,
    -- What the root keys signed.
    statement BYTEA NOT NULL,
    signers TEXT NOT NULL,
    reason TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    erase_at BIGINT NOT NULL,
    erasing_at BIGINT,
    -- The newest checkpoint of its log.
    note TEXT,
    -- Rows that were deleted, by table.
    removed TEXT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (tenant_id, closing_id)
);

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write signal:read signal:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write tenant:read tenant:write tenant:export' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write signal:read signal:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write';
