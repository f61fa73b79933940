-- Routing: which tenant the people of a connection belong to, and who waits for a decision.

-- One row for each connection of the first tenant that routes.
CREATE TABLE access_routing (
    tenant_id UUID NOT NULL,
    connection_id UUID NOT NULL,
    -- The claim or attribute that is read. Nothing: the groups of the connection.
    claim TEXT,
    -- JSON, at most RULES_MAX.
    rules TEXT NOT NULL,
    revision BIGINT NOT NULL,
    -- JSON: what the logs of other tenants are still to be told.
    untold TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, connection_id)
);

-- What another tenant takes from a connection of the first one. At most as many as that has connections.
CREATE TABLE access_routed_connection (
    tenant_id UUID NOT NULL,
    connection_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- By which the people who come are known in this tenant.
    issuer TEXT NOT NULL,
    claim TEXT,
    -- JSON: the values of the claim whose people are taken.
    accepted TEXT NOT NULL,
    -- Whether people are taken whom the first tenant assigned one by one.
    assigned_people BIGINT NOT NULL,
    -- The definition of the connection that was looked at.
    definition_sha256 BYTEA NOT NULL,
    accepted_by TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, connection_id)
);

CREATE INDEX access_routed_connection_id ON access_routed_connection (connection_id);

-- Who came by a connection that routes: where they belong, or why they wait. At most ROUTED_PEOPLE_MAX for each connection.
CREATE TABLE access_routed_person (
    tenant_id UUID NOT NULL,
    connection_id UUID NOT NULL,
    -- Of issuer and subject.
    person_sha256 BYTEA NOT NULL,
    -- What a person who waits is told to quote.
    reference UUID NOT NULL,
    username TEXT NOT NULL,
    display_name TEXT NOT NULL,
    placed_tenant UUID,
    placed_at BIGINT,
    seen_at BIGINT NOT NULL,
    -- Why they wait, since when, and what routing found, JSON.
    reason TEXT,
    held_at BIGINT,
    held_times BIGINT NOT NULL,
    told_at BIGINT,
    found TEXT NOT NULL,
    -- assign or refuse, and to which tenant, while routing finds the same.
    decision TEXT,
    decided_tenant UUID,
    decided_found TEXT,
    decided_by TEXT,
    decided_at BIGINT,
    PRIMARY KEY (tenant_id, connection_id, person_sha256)
);

CREATE UNIQUE INDEX access_routed_person_reference ON access_routed_person (tenant_id, reference);
CREATE INDEX access_routed_person_held ON access_routed_person (tenant_id, held_at) WHERE reason IS NOT NULL;
CREATE INDEX access_routed_person_seen ON access_routed_person (seen_at);

-- By which connections people of a tenant enroll their own devices. Without a row nobody does.
CREATE TABLE access_self_enrollment (
    tenant_id UUID NOT NULL,
    connection_id UUID NOT NULL,
    devices_max BIGINT NOT NULL,
    tokens_per_hour_max BIGINT NOT NULL,
    -- company or personal: what the devices of these people are.
    ownership TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, connection_id)
);

-- What routing found of whoever has the session, so that each request asks again. JSON.
ALTER TABLE access_session ADD COLUMN routed TEXT;

-- The person who asked for the token, of a token that somebody made for their own device, by which connection they came, and what
-- routing was told of them.
ALTER TABLE enrollment_token ADD COLUMN person TEXT;
ALTER TABLE enrollment_token ADD COLUMN person_connection UUID;
ALTER TABLE enrollment_token ADD COLUMN person_routed TEXT;
CREATE INDEX enrollment_token_person ON enrollment_token (tenant_id, person, created_at) WHERE person IS NOT NULL;
