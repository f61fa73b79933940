-- Passkeys that people made in the console. A key counts only once the root document names it; this table only knows by
-- which credential a browser finds it.

CREATE TABLE access_passkey (
    tenant_id UUID NOT NULL,
    -- The SHA-256 of the public key's SPKI: the key's name in the root document.
    key_id BYTEA NOT NULL,
    credential_id BYTEA NOT NULL,
    -- SPKI in DER.
    public_key BYTEA NOT NULL,
    -- The account that made it.
    actor TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The site that it belongs to.
    relying_party TEXT NOT NULL,
    origin TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
);

CREATE INDEX access_passkey_actor ON access_passkey (tenant_id, actor, created_at);
