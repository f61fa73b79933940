-- Questions that are kept, their answers, and devices that are asked for fresh facts.

-- At most SAVED_MAX for each tenant.
CREATE TABLE query_saved (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    question TEXT NOT NULL,
    -- JSON, absent where it is asked by people alone.
    schedule TEXT,
    owner TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- Counts changes, for If-Match.
    version BIGINT NOT NULL,
    next_run_at BIGINT,
    PRIMARY KEY (tenant_id, name)
);

CREATE INDEX query_saved_due ON query_saved (next_run_at, tenant_id, name) WHERE next_run_at IS NOT NULL;

-- The last RUNS_KEPT of each saved question.
CREATE TABLE query_run (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    run_id UUID NOT NULL,
    ran_at BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    -- How many rows the answer has, and how many of them came and went since the run before.
    row_count BIGINT NOT NULL,
    added BIGINT,
    removed BIGINT,
    -- JSON, at most ANSWER_BYTES_MAX. Absent where the question could not be answered.
    answer TEXT,
    error TEXT,
    PRIMARY KEY (tenant_id, name, run_id)
);

-- At most REFRESHES_OPEN_MAX that are open for each tenant. Those that ended go after a while.
CREATE TABLE query_refresh (
    tenant_id UUID NOT NULL,
    refresh_id UUID NOT NULL,
    question TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deadline_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- How far devices were asked, in the order of their ids.
    asked_to UUID NOT NULL,
    is_listed BOOLEAN NOT NULL,
    -- How many devices are meant, were asked, and were away when they were asked.
    devices BIGINT NOT NULL,
    asked BIGINT NOT NULL,
    away BIGINT NOT NULL,
    -- How many had not answered at the end.
    unanswered BIGINT,
    PRIMARY KEY (tenant_id, refresh_id)
);

CREATE INDEX query_refresh_open ON query_refresh (tenant_id, refresh_id) WHERE ended_at IS NULL;

CREATE INDEX query_refresh_ended ON query_refresh (ended_at) WHERE ended_at IS NOT NULL;

-- Devices that were asked and have not answered. A row goes with the device's facts, or with the end of the refresh.
CREATE TABLE query_asked (
    tenant_id UUID NOT NULL,
    refresh_id UUID NOT NULL,
    device_id UUID NOT NULL,
    PRIMARY KEY (tenant_id, refresh_id, device_id)
);

CREATE INDEX query_asked_device ON query_asked (tenant_id, device_id);

-- Whoever held every scope holds the new one as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write alert:read alert:write sink:read sink:write query:write log:read client:read client:write config:read config:write root:read root:write' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read rollout:read rollout:write alert:read alert:write sink:read sink:write log:read client:read client:write config:read config:write root:read root:write';
