-- Access to the API without stored secrets.

-- Where a service account publishes its keys.
ALTER TABLE access_client ADD COLUMN jwks_uri TEXT;
-- When a way to act as this account was last added.
ALTER TABLE access_client ADD COLUMN credentials_at BIGINT;

-- Public keys of service accounts.
CREATE TABLE access_client_key (
    tenant_id UUID NOT NULL,
    client_id UUID NOT NULL,
    -- RFC 7638.
    thumbprint TEXT NOT NULL,
    -- As assertions name it.
    kid TEXT NOT NULL,
    jwk TEXT NOT NULL,
    added_by TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, client_id, thumbprint),
    UNIQUE (tenant_id, client_id, kid)
);

-- Issuers whose tokens are taken: of workloads in exchange for a service account's, or of people.
CREATE TABLE access_trust (
    tenant_id UUID NOT NULL,
    trust_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- workload or people.
    kind TEXT NOT NULL,
    -- Whose tokens are meant.
    issuer TEXT NOT NULL,
    -- The account that a workload acts as.
    client_id UUID,
    -- The connection that people are known by.
    connection_id UUID,
    -- As the API takes it, JSON.
    definition TEXT NOT NULL,
    -- Sealed: with which this server asks about tokens.
    secret BYTEA,
    created_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- How the last tokens fared.
    used_at BIGINT,
    failed_at BIGINT,
    error TEXT,
    PRIMARY KEY (tenant_id, trust_id),
    UNIQUE (tenant_id, name)
);

CREATE UNIQUE INDEX access_trust_id ON access_trust (trust_id);
CREATE INDEX access_trust_client ON access_trust (tenant_id, client_id);
CREATE INDEX access_trust_issuer ON access_trust (issuer, kind);

-- Programs that wait until a person lets them in (RFC 8628).
CREATE TABLE access_device_login (
    -- All zeros until somebody decides: whoever asks belongs to no tenant.
    tenant_id UUID NOT NULL,
    device_sha256 BYTEA NOT NULL,
    user_code TEXT NOT NULL,
    -- What was asked for. Empty for whatever the person may do.
    scopes TEXT NOT NULL,
    -- What the program says of itself.
    label TEXT NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    polled_at BIGINT,
    interval_seconds BIGINT NOT NULL,
    -- asked, allowed or refused.
    state TEXT NOT NULL,
    -- The session of whoever allowed it.
    session_sha256 BYTEA,
    PRIMARY KEY (tenant_id, device_sha256)
);

CREATE UNIQUE INDEX access_device_login_device ON access_device_login (device_sha256);
CREATE UNIQUE INDEX access_device_login_code ON access_device_login (user_code);
CREATE INDEX access_device_login_end ON access_device_login (expires_at);

-- console, or api: a session that a program holds for a person.
ALTER TABLE access_session ADD COLUMN kind TEXT NOT NULL DEFAULT 'console';
-- The most that the session may do. Empty: no limit of its own.
ALTER TABLE access_session ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
