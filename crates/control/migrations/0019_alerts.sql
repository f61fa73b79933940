-- Alerts: rules, destinations, what fires, what is told to whom, what is silenced, what expires.

-- A tenant's own rules, and what it changed of those that come along. At most RULES_MAX for each tenant.
CREATE TABLE alerts_rule (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- JSON.
    definition TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- At most DESTINATIONS_MAX for each tenant.
CREATE TABLE alerts_destination (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- JSON, without the secret.
    place TEXT NOT NULL,
    -- Sealed with the key of the key folder. It opens for this tenant and name alone.
    secret BYTEA,
    is_default BOOLEAN NOT NULL,
    is_enabled BOOLEAN NOT NULL,
    heartbeat_seconds BIGINT,
    heartbeat_at BIGINT,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    succeeded_at BIGINT,
    failed_at BIGINT,
    error TEXT,
    PRIMARY KEY (tenant_id, name)
);

-- Open ones are bounded by the rules; those that ended go after a while, or when newer ones need the room.
CREATE TABLE alerts_alert (
    tenant_id UUID NOT NULL,
    alert_id UUID NOT NULL,
    rule TEXT NOT NULL,
    group_key TEXT NOT NULL,
    state TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    -- JSON, at most INSTANCES_MAX of them.
    instances TEXT NOT NULL,
    occurrences BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    fired_at BIGINT,
    resolved_at BIGINT,
    because TEXT,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    -- A JSON list of destinations.
    told TEXT NOT NULL,
    told_at BIGINT,
    told_occurrences BIGINT NOT NULL,
    escalated BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, alert_id)
);

CREATE UNIQUE INDEX alerts_alert_open ON alerts_alert (tenant_id, group_key) WHERE resolved_at IS NULL;

CREATE INDEX alerts_alert_resolved ON alerts_alert (tenant_id, resolved_at) WHERE resolved_at IS NOT NULL;

-- At most SILENCES_MAX that are not over for each tenant; those that are over go after a while.
CREATE TABLE alerts_silence (
    tenant_id UUID NOT NULL,
    silence_id UUID NOT NULL,
    matcher TEXT NOT NULL,
    reason TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    weekly_until BIGINT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- When it counts for the last time.
    over_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, silence_id)
);

CREATE INDEX alerts_silence_over ON alerts_silence (tenant_id, over_at);

-- The outbox and the log of what was sent. At most PENDING_MAX wait for one destination; those that ended go after a while, or
-- when newer ones need the room.
CREATE TABLE alerts_delivery (
    tenant_id UUID NOT NULL,
    delivery_id UUID NOT NULL,
    alert_id UUID,
    destination TEXT NOT NULL,
    event TEXT NOT NULL,
    -- JSON: the message as it was when it was written.
    notice TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- What the other side answered last, where it answered.
    status BIGINT,
    error TEXT,
    PRIMARY KEY (tenant_id, delivery_id)
);

CREATE INDEX alerts_delivery_due ON alerts_delivery (next_at, tenant_id, destination) WHERE ended_at IS NULL;

CREATE INDEX alerts_delivery_waiting ON alerts_delivery (tenant_id, destination, delivery_id) WHERE ended_at IS NULL;

CREATE INDEX alerts_delivery_alert ON alerts_delivery (tenant_id, alert_id, delivery_id) WHERE alert_id IS NOT NULL;

CREATE INDEX alerts_delivery_dead ON alerts_delivery (tenant_id, ended_at) WHERE state = 'dead';

CREATE INDEX alerts_delivery_ended ON alerts_delivery (tenant_id, ended_at) WHERE ended_at IS NOT NULL;

-- What expires outside of this installation and what its nodes say of themselves. At most EXPIRIES_MAX for each tenant.
CREATE TABLE alerts_expiry (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    note TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- `person` or `node`: a node's row goes when the node says nothing for a while.
    source TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- How far the log was followed.
CREATE TABLE alerts_tenant (
    tenant_id UUID NOT NULL,
    followed BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- How long a command waited for a device that had been heard of when it was made; absent where the device was away.
ALTER TABLE commands_command ADD COLUMN waited_ms BIGINT;

CREATE INDEX commands_command_waited ON commands_command (tenant_id, delivered_at) WHERE waited_ms IS NOT NULL;

CREATE INDEX commands_command_waiting ON commands_command (tenant_id, created_at)
    WHERE completed_at IS NULL AND delivered_at IS NULL;
