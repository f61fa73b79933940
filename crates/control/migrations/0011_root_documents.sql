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

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = scopes || ' root:read root:write'
    WHERE scopes LIKE '%device:write%' AND scopes LIKE '%policy:activate%' AND scopes LIKE '%client:write%'
    AND scopes LIKE '%config:write%' AND scopes LIKE '%log:read%' AND scopes LIKE '%command:write%'
    AND scopes LIKE '%token:write%' AND scopes LIKE '%rollout:write%' AND scopes LIKE '%group:write%'
    AND scopes LIKE '%policy:write%' AND scopes LIKE '%client:read%' AND scopes LIKE '%config:read%';
