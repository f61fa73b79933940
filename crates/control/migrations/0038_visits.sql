-- Visits: people of the operator's tenant in another tenant, with its consent.

-- How far a tenant lets them in. Without a row: never. At most one row of a tenant.
CREATE TABLE access_operator_access (
    tenant_id UUID NOT NULL,
    -- never, ask, always.
    mode TEXT NOT NULL,
    -- The built-in role that no visit goes beyond.
    ceiling TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- Visits that are asked for, under way, or over: rows of the tenant that is visited. At most OPEN_MAX that are not over, and the newest
-- VISITS_MAX in all. Both logs remember all of them.
CREATE TABLE access_visit (
    tenant_id UUID NOT NULL,
    visit_id UUID NOT NULL,
    -- The tenant of whoever visits.
    home UUID NOT NULL,
    person TEXT NOT NULL,
    display_name TEXT NOT NULL,
    -- Who answers for the person at home: the maker of their link, or they themselves.
    account TEXT NOT NULL,
    -- As the log of the visited tenant names the visitor. No other visit has it.
    actor TEXT NOT NULL,
    role TEXT NOT NULL,
    minutes BIGINT NOT NULL,
    reason TEXT NOT NULL,
    -- requested, granted, denied, expired, active, ended.
    state TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    -- Until when it is answered, or begun.
    answer_by BIGINT NOT NULL,
    decided_by TEXT,
    decided_at BIGINT,
    begun_at BIGINT,
    ends_at BIGINT,
    -- The session at home on which the visit stands, and the visit's own.
    home_session UUID,
    session_id UUID,
    -- Changes that the visitor made, counted in the transactions that made them.
    changes BIGINT NOT NULL,
    -- The size of the visited tenant's log before and after, and its checkpoint then.
    size_before BIGINT,
    size_after BIGINT,
    checkpoint TEXT,
    ended_at BIGINT,
    ended_by TEXT,
    ended_because TEXT,
    PRIMARY KEY (tenant_id, visit_id)
);

CREATE UNIQUE INDEX access_visit_actor ON access_visit (tenant_id, actor);
CREATE INDEX access_visit_home ON access_visit (home, visit_id);
CREATE INDEX access_visit_open ON access_visit (tenant_id, visit_id) WHERE state IN ('requested', 'granted', 'active');

-- Whoever held every scope holds the new ones as well.
UPDATE access_client SET scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write signal:read signal:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write tenant:read tenant:write tenant:export tenant:enter visit:manage' WHERE scopes = 'device:read device:write group:read group:write command:read output:read script:read script:write command:write command:wipe script:run approval:write halt:write token:read token:write policy:read policy:write policy:activate telemetry:read directory:read scim:write rollout:read rollout:write alert:read alert:write sink:read sink:write signal:read signal:write query:write log:read client:read client:write secret:read secret:write config:read config:write root:read root:write access:read access:write session:write sso:write tenant:read tenant:write tenant:export';
