-- Telemetry: what devices measured, as compressed chunks, and what happened on them.

-- What was taken of each stream of batches. At most STREAMS_MAX for each device; those of earlier enrollments end with the
-- next one.
CREATE TABLE telemetry_stream (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    epoch BIGINT NOT NULL,
    stream_id UUID NOT NULL,
    -- Every batch up to it was taken, and none of them is taken again.
    accepted_through BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    -- Windows that were taken, that were older than what is kept, and that could not be kept.
    points BIGINT NOT NULL,
    points_expired BIGINT NOT NULL,
    points_refused BIGINT NOT NULL,
    -- What the device last said of samples made, sent and dropped: JSON.
    accounting TEXT NOT NULL,
    -- By how much the server's clock was ahead of the device's at the last batch, where that was known.
    clock_offset BIGINT,
    -- When the last batch was made, by the device's clock.
    sent_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, epoch, stream_id)
);

-- Batches that wait until they are merged into chunks or sent on. Bounded by what a tenant may have waiting.
CREATE TABLE telemetry_spool (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    batch_id UUID NOT NULL,
    points BIGINT NOT NULL,
    size BIGINT NOT NULL,
    content BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, batch_id)
);

CREATE INDEX telemetry_spool_age ON telemetry_spool (received_at, tenant_id, device_id);

CREATE INDEX telemetry_spool_size ON telemetry_spool (tenant_id, size);

-- Series of a device over a span of time, at one of three resolutions. Bounded by each resolution's retention.
CREATE TABLE telemetry_chunk (
    tenant_id UUID NOT NULL,
    level BIGINT NOT NULL,
    device_id UUID NOT NULL,
    -- Seconds since the epoch.
    span_start BIGINT NOT NULL,
    points BIGINT NOT NULL,
    size BIGINT NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, level, device_id, span_start)
);

CREATE INDEX telemetry_chunk_age ON telemetry_chunk (level, span_start);

-- Hours in which a device's clock was wrong. At most CLOCK_ROWS_MAX for each device.
CREATE TABLE telemetry_clock (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    hour BIGINT NOT NULL,
    -- What was added to the device's times.
    clock_offset BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, hour)
);

-- Things that happened on devices. At most EVENTS_MAX for each device, each for EVENT_RETENTION.
CREATE TABLE telemetry_event (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    event_id UUID NOT NULL,
    name TEXT NOT NULL,
    at BIGINT NOT NULL,
    -- As the device's clock said.
    device_at BIGINT NOT NULL,
    attributes TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, event_id)
);

CREATE INDEX telemetry_event_device ON telemetry_event (tenant_id, device_id, at);

CREATE INDEX telemetry_event_tenant ON telemetry_event (tenant_id, at, event_id);

CREATE INDEX telemetry_event_received ON telemetry_event (received_at);

-- Whoever held every scope holds the new one as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write log:read client:read client:write config:read config:write root:read root:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate rollout:read rollout:write log:read client:read client:write config:read config:write root:read root:write';
