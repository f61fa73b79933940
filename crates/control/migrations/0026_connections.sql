-- Connections to identity providers.
CREATE TABLE access_connection (
    tenant_id UUID NOT NULL,
    connection_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- oidc or saml.
    kind TEXT NOT NULL,
    -- As the API takes it, JSON.
    definition TEXT NOT NULL,
    -- Sealed: the secret or the key with which this server proves who it is there.
    secret BYTEA,
    disabled_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- How the last sign-ins went.
    succeeded_at BIGINT,
    failed_at BIGINT,
    error TEXT,
    PRIMARY KEY (tenant_id, connection_id),
    UNIQUE (tenant_id, name)
);

CREATE UNIQUE INDEX access_connection_id ON access_connection (connection_id);

-- What counts once: requests for a sign-in, and tokens that end sessions.
CREATE TABLE access_replay (
    tenant_id UUID NOT NULL,
    kind TEXT NOT NULL,
    value_sha256 BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, value_sha256)
);

CREATE INDEX access_replay_end ON access_replay (expires_at);
CREATE INDEX access_session_provider ON access_session (tenant_id, connection_id, provider_session);
