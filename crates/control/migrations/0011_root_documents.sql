-- Root documents after version 1, which is beside the keys. A row counts if its predecessor's and its own keys signed it, and
-- for nothing else: each node checks the chain from version 1 on. At most `MAX_ROOT_STEPS` rows for each tenant.
CREATE TABLE secrets_root_document (
    tenant_id UUID NOT NULL,
    version BIGINT NOT NULL,
    -- The DSSE envelope as JSON.
    envelope BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, version)
);
