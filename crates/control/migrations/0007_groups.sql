-- Labels of devices, and the groups that expressions over facts, attributes and labels make.

CREATE TABLE devices_label (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, device_id, key)
);

CREATE INDEX devices_label_value ON devices_label (tenant_id, key, value, device_id);

-- Devices of which something changed that expressions read. `what` is a set of bits, `mark` counts the changes. The row is
-- also what two transactions that change or evaluate one device take turns by.
CREATE TABLE devices_change (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    what BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE INDEX devices_device_serial ON devices_device (tenant_id, serial);

CREATE INDEX devices_device_name ON devices_device (tenant_id, name);

-- `version` counts the changes of a tenant's groups.
CREATE TABLE groups_tenant (
    tenant_id UUID PRIMARY KEY,
    version BIGINT NOT NULL
);

CREATE TABLE groups_group (
    tenant_id UUID NOT NULL,
    group_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    include_when TEXT NOT NULL,
    exclude_when TEXT,
    -- Whether an expression reads the time: then it is evaluated again now and then.
    reads_now BOOLEAN NOT NULL,
    -- The tenant's version that made this definition.
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    -- How far a full evaluation has come: the last device that was looked at.
    evaluated_to UUID NOT NULL,
    evaluated_at BIGINT,
    members BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, group_id),
    UNIQUE (tenant_id, name)
);

CREATE INDEX groups_group_unfinished ON groups_group (tenant_id, evaluated_to) WHERE state <> 'ready';

CREATE TABLE groups_member (
    tenant_id UUID NOT NULL,
    group_id UUID NOT NULL,
    device_id UUID NOT NULL,
    PRIMARY KEY (tenant_id, group_id, device_id)
);

CREATE INDEX groups_member_device ON groups_member (tenant_id, device_id, group_id);

-- What uses a group, so that it is not deleted meanwhile.
CREATE TABLE groups_usage (
    tenant_id UUID NOT NULL,
    group_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, group_id, user_id)
);

-- Devices whose groups changed lately, for the memory of other nodes; the nil device stands for all of a tenant.
CREATE TABLE groups_move (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE INDEX groups_move_time ON groups_move (moved_at);

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read command:write token:read token:write policy:read policy:write policy:activate rollout:read rollout:write log:read client:read client:write config:read config:write' WHERE scopes = 'device:read device:write command:read command:write token:read token:write policy:read policy:write policy:activate rollout:read rollout:write log:read client:read client:write config:read config:write';
