-- Sinks: where entries of the log and events of devices are sent, how far each was taken, and what was set aside.

-- At most SINKS_MAX for each tenant.
CREATE TABLE sinks_sink (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- JSON, without the secret.
    definition TEXT NOT NULL,
    -- Sealed with the key of the key folder. It opens for this tenant and name alone.
    secret BYTEA,
    is_paused BOOLEAN NOT NULL,
    -- Grows with every change that a person makes.
    revision BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- How far each stream of a sink was taken: one or two rows for each sink.
CREATE TABLE sinks_cursor (
    tenant_id UUID NOT NULL,
    sink TEXT NOT NULL,
    stream TEXT NOT NULL,
    -- The first place that was not settled yet.
    place BIGINT NOT NULL,
    -- Grows when somebody moves the cursor: what was under way then does not move it back.
    generation BIGINT NOT NULL,
    -- Tries since something was taken last, and when the next one is.
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    -- Events that are sent at once, at most: fewer after a batch was too much.
    batch_max BIGINT NOT NULL,
    -- Events that were refused one after the other.
    refused_in_row BIGINT NOT NULL,
    -- Since the sink was made: what was taken, what was set aside, and what was not kept any more when its turn came.
    taken BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    missed BIGINT NOT NULL,
    succeeded_at BIGINT,
    failed_at BIGINT,
    -- What the other side answered last, where it answered, and why the last try failed.
    status BIGINT,
    error TEXT,
    PRIMARY KEY (tenant_id, sink, stream)
);

-- What the other side refuses for good, by its place. At most LETTERS_MAX for each sink, each for LETTERS_KEPT.
CREATE TABLE sinks_letter (
    tenant_id UUID NOT NULL,
    sink TEXT NOT NULL,
    stream TEXT NOT NULL,
    place BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    -- Whether somebody asked for it to be sent again.
    is_again BOOLEAN NOT NULL,
    error TEXT NOT NULL,
    died_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, sink, stream, place)
);

CREATE INDEX sinks_letter_again ON sinks_letter (tenant_id, sink, stream, place) WHERE is_again;

CREATE INDEX sinks_letter_age ON sinks_letter (tenant_id, died_at);

-- The order of a tenant's events, from 0: those of before have none and are not sent.
ALTER TABLE telemetry_event ADD COLUMN place BIGINT;

CREATE UNIQUE INDEX telemetry_event_place ON telemetry_event (tenant_id, place) WHERE place IS NOT NULL;

-- How many places were given.
CREATE TABLE telemetry_event_end (
    tenant_id UUID NOT NULL,
    places BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- The address of a message that tells a destination of its own end or change: the one of before, with its sealed secret.
ALTER TABLE alerts_delivery ADD COLUMN place TEXT;

ALTER TABLE alerts_delivery ADD COLUMN secret BYTEA;

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write alert:read alert:write sink:read sink:write log:read client:read client:write config:read config:write root:read root:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write alert:read alert:write log:read client:read client:write config:read config:write root:read root:write';
