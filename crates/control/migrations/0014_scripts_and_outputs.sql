-- Scripts that devices may run, and what commands printed or collected.

-- Named by the SHA-256 of what was signed. At most SCRIPTS_MAX for each tenant.
CREATE TABLE scripts_script (
    tenant_id UUID NOT NULL,
    sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    interpreter TEXT NOT NULL,
    timeout_seconds BIGINT NOT NULL,
    output_bytes_max BIGINT NOT NULL,
    -- The DSSE envelope over the script, as devices check it.
    envelope TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, sha256)
);

-- One gzip file for each command; it goes after RETENTION, or when newer ones of its tenant need the room.
CREATE TABLE outputs_output (
    tenant_id UUID NOT NULL,
    command_id UUID NOT NULL,
    device_id UUID NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    content BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, command_id)
);

CREATE INDEX outputs_output_age ON outputs_output (tenant_id, received_at, size);

CREATE INDEX outputs_output_received ON outputs_output (received_at);
