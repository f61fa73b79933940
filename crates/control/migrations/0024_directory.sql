-- The directory: people and groups of people as identity providers keep them, and what follows for sign-ins and devices.

-- What is counted of a tenant, so that nothing is counted again for every change.
CREATE TABLE directory_tenant (
    tenant_id UUID NOT NULL,
    users BIGINT NOT NULL,
    groups BIGINT NOT NULL,
    members BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- At most USERS_MAX for each tenant.
CREATE TABLE directory_user (
    tenant_id UUID NOT NULL,
    user_id UUID NOT NULL,
    -- By which names are the same name, see name_key.
    name_key TEXT NOT NULL,
    user_name TEXT NOT NULL,
    display_name TEXT,
    department TEXT,
    active BOOLEAN NOT NULL,
    -- The service account that made it, whose the external id is.
    connector UUID NOT NULL,
    external_id TEXT,
    -- The SCIM resource, JSON, without what the columns say.
    resource TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);

CREATE UNIQUE INDEX directory_user_name ON directory_user (tenant_id, name_key);

CREATE INDEX directory_user_external ON directory_user (tenant_id, connector, external_id)
    WHERE external_id IS NOT NULL;

-- At most GROUPS_MAX for each tenant.
CREATE TABLE directory_group (
    tenant_id UUID NOT NULL,
    group_id UUID NOT NULL,
    name_key TEXT NOT NULL,
    display_name TEXT NOT NULL,
    connector UUID NOT NULL,
    external_id TEXT,
    members BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    -- How far its members were told of a change that concerns all of them, and through how many groups it came here.
    walked_to UUID,
    walk_depth BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, group_id)
);

CREATE INDEX directory_group_name ON directory_group (tenant_id, name_key);

CREATE INDEX directory_group_external ON directory_group (tenant_id, connector, external_id)
    WHERE external_id IS NOT NULL;

CREATE INDEX directory_group_walk ON directory_group (tenant_id, group_id) WHERE walked_to IS NOT NULL;

-- At most MEMBERS_MAX for each tenant.
CREATE TABLE directory_member (
    tenant_id UUID NOT NULL,
    group_id UUID NOT NULL,
    member_id UUID NOT NULL,
    is_group BOOLEAN NOT NULL,
    PRIMARY KEY (tenant_id, group_id, member_id)
);

CREATE INDEX directory_member_of ON directory_member (tenant_id, member_id, group_id);

-- People of whom something changed that their devices go by. One row for each name, gone within seconds.
CREATE TABLE directory_touched (
    tenant_id UUID NOT NULL,
    name_key TEXT NOT NULL,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name_key)
);

-- What identity providers asked last: changes, and what was refused. The newest REQUESTS_MAX for each tenant, for a week.
CREATE TABLE directory_request (
    tenant_id UUID NOT NULL,
    request_id UUID NOT NULL,
    connector UUID NOT NULL,
    method TEXT NOT NULL,
    -- Such as Users/usr_…: never a value.
    target TEXT NOT NULL,
    status BIGINT NOT NULL,
    scim_type TEXT,
    detail TEXT,
    asked_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, request_id)
);

-- People who must not be signed in. The name is a digest, as it stays when the person is gone. At most BARRED_MAX for each tenant.
CREATE TABLE access_barred (
    tenant_id UUID NOT NULL,
    person_sha256 BYTEA NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, person_sha256)
);

CREATE INDEX access_barred_age ON access_barred (tenant_id, since);

-- Tokens of identity providers, which cannot fetch a new one each hour. At most SCIM_TOKENS_MAX for each tenant.
CREATE TABLE access_scim_token (
    tenant_id UUID NOT NULL,
    token_id UUID NOT NULL,
    client_id UUID NOT NULL,
    secret_sha256 BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    revoked_at BIGINT,
    PRIMARY KEY (tenant_id, token_id)
);

CREATE UNIQUE INDEX access_scim_token_secret ON access_scim_token (secret_sha256);

-- By which a device's owner and a person of the directory are the same.
ALTER TABLE devices_device ADD COLUMN owner_key TEXT;

UPDATE devices_device SET owner_key = LOWER(TRIM(owner)) WHERE owner IS NOT NULL;

CREATE INDEX devices_device_owner_key ON devices_device (tenant_id, owner_key) WHERE owner_key IS NOT NULL;

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write';
