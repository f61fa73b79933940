-- ACME orders (RFC 8555), and the nonces that were used. An account is its key, and has no row.

CREATE TABLE acme_nonce (
    tenant_id UUID NOT NULL,
    nonce BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, nonce)
);

CREATE INDEX acme_nonce_expiry ON acme_nonce (expires_at);

-- An order has one authorization with one challenge, so one row and one status stand for all three.
CREATE TABLE acme_order (
    tenant_id UUID NOT NULL,
    order_id UUID NOT NULL,
    account BYTEA NOT NULL,
    jti UUID NOT NULL,
    -- The one-time identifier, encrypted: a backup of the database enrolls nobody.
    identifier BYTEA NOT NULL,
    challenge BYTEA NOT NULL,
    status TEXT NOT NULL,
    validated_at BIGINT,
    spki BYTEA,
    evidence TEXT,
    error TEXT,
    certificate BYTEA,
    chain TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, order_id)
);

CREATE INDEX acme_order_account ON acme_order (tenant_id, account);

CREATE INDEX acme_order_token ON acme_order (tenant_id, jti);

CREATE INDEX acme_order_expiry ON acme_order (expires_at);
