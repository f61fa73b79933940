-- Who vouches for a person that is signed in: the account that made the sign-in link. What one account asks for directly,
-- and through the people that it signs in, is asked by one account.
ALTER TABLE access_signin ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE access_session ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE commands_operation ADD COLUMN asked_through TEXT NOT NULL DEFAULT '';

-- Since when a person has been known: a name that was made up today asks for nothing destructive.
CREATE TABLE access_person (
    tenant_id UUID NOT NULL,
    person TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, person)
);
