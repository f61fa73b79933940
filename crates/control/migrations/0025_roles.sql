-- Roles: who may do what follows from them. Built-in roles are in access/roles.tsv, not in a table.
CREATE TABLE access_role (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- In the order of the list of scopes, with spaces between.
    scopes TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- Which role somebody has: a person, a service account, or a group of an identity provider.
CREATE TABLE access_grant (
    tenant_id UUID NOT NULL,
    -- person, client or group.
    kind TEXT NOT NULL,
    -- Of a group: who says that somebody is in it. Otherwise empty.
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    granted_at BIGINT NOT NULL,
    expires_at BIGINT,
    PRIMARY KEY (tenant_id, kind, source, subject, role)
);

CREATE INDEX access_grant_role ON access_grant (tenant_id, role);
CREATE INDEX access_grant_end ON access_grant (expires_at);

-- What a tenant says of its sessions. Without a row, what the program says.
CREATE TABLE access_settings (
    tenant_id UUID NOT NULL PRIMARY KEY,
    idle_seconds BIGINT NOT NULL,
    session_seconds BIGINT NOT NULL,
    step_up_seconds BIGINT NOT NULL,
    sessions_per_person BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The roles of a link, with spaces between. Empty: whatever its maker may do.
ALTER TABLE access_signin ADD COLUMN roles TEXT NOT NULL DEFAULT '';

ALTER TABLE access_session ADD COLUMN session_id UUID;
-- link, or how the person came otherwise.
ALTER TABLE access_session ADD COLUMN method TEXT NOT NULL DEFAULT 'link';
ALTER TABLE access_session ADD COLUMN roles TEXT NOT NULL DEFAULT '';
-- Who says who this is, where it is no link.
ALTER TABLE access_session ADD COLUMN connection_id UUID;
-- The session at the identity provider, where it named one.
ALTER TABLE access_session ADD COLUMN provider_session TEXT;
-- The groups that the identity provider named, as a JSON array.
ALTER TABLE access_session ADD COLUMN member_of TEXT NOT NULL DEFAULT '[]';
-- When the person last proved who they are.
ALTER TABLE access_session ADD COLUMN authenticated_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE access_session ADD COLUMN idle_seconds BIGINT;
-- What a passkey is asked to sign, once.
ALTER TABLE access_session ADD COLUMN challenge BYTEA;

CREATE INDEX access_session_person ON access_session (tenant_id, actor, created_at);
CREATE UNIQUE INDEX access_session_id ON access_session (tenant_id, session_id);

-- Who a person is outside: the subject of an issuer. People of links have none.
ALTER TABLE access_person ADD COLUMN issuer TEXT;
ALTER TABLE access_person ADD COLUMN subject TEXT;
ALTER TABLE access_person ADD COLUMN connection_id UUID;
-- What they sign in with there, by which a directory knows them.
ALTER TABLE access_person ADD COLUMN username TEXT NOT NULL DEFAULT '';
ALTER TABLE access_person ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
ALTER TABLE access_person ADD COLUMN member_of TEXT NOT NULL DEFAULT '[]';
-- The scopes at the last sign-in, and when they last became more.
ALTER TABLE access_person ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
ALTER TABLE access_person ADD COLUMN raised_at BIGINT;
ALTER TABLE access_person ADD COLUMN seen_at BIGINT;
ALTER TABLE access_person ADD COLUMN disabled_at BIGINT;

CREATE UNIQUE INDEX access_person_subject ON access_person (tenant_id, issuer, subject);

ALTER TABLE access_client ADD COLUMN used_at BIGINT;

-- Whoever held every scope holds the new ones as well, and whoever sent commands still sends all of them.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write access:read access:write session:write sso:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write';
UPDATE access_client SET scopes = replace(scopes, 'command:write', 'command:write command:wipe script:run')
    WHERE scopes LIKE '%command:write%' AND scopes NOT LIKE '%command:wipe%';
