-- How far each log is in the archive: full bundles of 256 entries, and the size of the newest archived checkpoint.
CREATE TABLE audit_archive (
    tenant_id UUID PRIMARY KEY,
    bundles BIGINT NOT NULL,
    size BIGINT NOT NULL,
    archived_at BIGINT NOT NULL
);
