-- What one call asks of many devices, or asks people to approve; the halt switch; who sends how much.

-- The list of devices is frozen when it is asked. The commands of an operation are made when it is released, never before.
CREATE TABLE commands_operation (
    tenant_id UUID NOT NULL,
    operation_id UUID NOT NULL,
    kind TEXT NOT NULL,
    arguments TEXT NOT NULL,
    state TEXT NOT NULL,
    -- The device, where there is one: its command has the id of the operation.
    device_id UUID,
    targets BIGINT NOT NULL,
    -- Targets, from the first on, that were released.
    released BIGINT NOT NULL,
    -- Of these, those that were left out: retired, enrolled anew, or not allowed.
    left_out BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ttl_seconds BIGINT NOT NULL,
    reason TEXT,
    -- Why it is held, or why it ended otherwise than by having been released.
    because TEXT,
    -- The batch statement that people sign, its digest, and what they signed, as a JSON list.
    batch BYTEA,
    batch_sha256 BYTEA,
    approvals TEXT,
    -- When the next targets may be released.
    next_at BIGINT,
    ended_at BIGINT,
    PRIMARY KEY (tenant_id, operation_id)
);

CREATE INDEX commands_operation_open ON commands_operation (tenant_id, operation_id) WHERE ended_at IS NULL;

CREATE INDEX commands_operation_device ON commands_operation (tenant_id, device_id, operation_id)
    WHERE device_id IS NOT NULL;

CREATE INDEX commands_operation_next ON commands_operation (next_at) WHERE next_at IS NOT NULL;

CREATE INDEX commands_operation_expiry ON commands_operation (expires_at) WHERE ended_at IS NULL;

CREATE INDEX commands_operation_ended ON commands_operation (ended_at) WHERE ended_at IS NOT NULL;

-- The targets by parts: for each 16 bytes of its id and 4 bytes of its epoch, big end first.
CREATE TABLE commands_target (
    tenant_id UUID NOT NULL,
    operation_id UUID NOT NULL,
    part BIGINT NOT NULL,
    targets BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, operation_id, part)
);

-- One row for each tenant. Whoever releases something destructive takes a turn, so that no two count the same budget.
CREATE TABLE commands_switch (
    tenant_id UUID NOT NULL,
    turn BIGINT NOT NULL,
    halted_at BIGINT,
    halted_by TEXT,
    because TEXT,
    PRIMARY KEY (tenant_id)
);

-- How many commands an account asked for in an hour since the epoch, and its largest call.
CREATE TABLE commands_pace (
    tenant_id UUID NOT NULL,
    actor TEXT NOT NULL,
    hour BIGINT NOT NULL,
    commands BIGINT NOT NULL,
    largest BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, actor, hour)
);

CREATE INDEX commands_pace_hour ON commands_pace (hour);

-- The place in the list of the operation.
ALTER TABLE commands_command ADD COLUMN position BIGINT;

-- When it is delivered again to a device that has taken it.
ALTER TABLE commands_command ADD COLUMN retry_at BIGINT;

-- When approvals released it; only of what needed them.
ALTER TABLE commands_command ADD COLUMN released_at BIGINT;

-- Why it ended without a receipt.
ALTER TABLE commands_command ADD COLUMN because TEXT;

CREATE INDEX commands_command_operation ON commands_command (tenant_id, operation_id, state)
    WHERE operation_id IS NOT NULL;

CREATE INDEX commands_command_released ON commands_command (tenant_id, released_at) WHERE released_at IS NOT NULL;

CREATE INDEX commands_command_completed ON commands_command (completed_at) WHERE completed_at IS NOT NULL;

CREATE INDEX commands_command_retry ON commands_command (retry_at) WHERE completed_at IS NULL AND retry_at IS NOT NULL;
