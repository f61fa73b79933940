-- The log's readers: who cosigned it, who saw another one, and finding entries by who acted.

-- The newest checkpoint with the cosignatures of witnesses. One row for each tenant.
CREATE TABLE audit_cosigned (
    tenant_id UUID PRIMARY KEY,
    size BIGINT NOT NULL,
    note TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Heads that our log key signed, that a device holds, and that our tree does not have. One row for each device, and at most
-- `SPLIT_VIEWS_MAX` for each tenant.
CREATE TABLE audit_split_view (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    note TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

-- Who acted; empty in entries of before until the server has read them again.
ALTER TABLE audit_entry ADD COLUMN actor TEXT NOT NULL DEFAULT '';

CREATE INDEX audit_entry_unlabeled ON audit_entry (tenant_id, entry_id) WHERE actor = '';

CREATE INDEX audit_entry_actor ON audit_entry (tenant_id, actor, seq);

CREATE INDEX audit_entry_action ON audit_entry (tenant_id, action, seq);
