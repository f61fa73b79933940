-- What the operator allows a tenant: at most one row for each. What is NULL is the installation's number.
CREATE TABLE access_limits (
    tenant_id UUID NOT NULL,
    requests_per_second BIGINT,
    requests_per_second_of_caller BIGINT,
    device_messages_per_second BIGINT,
    -- Devices that are enrolled and not retired.
    devices_max BIGINT,
    -- People of the directory.
    people_max BIGINT,
    changed_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);
