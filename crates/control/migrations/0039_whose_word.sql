-- Whose word people are who they are.

-- Of a person of sign-in links: the account that vouches for the name, and since when, where another one did before. Nothing for people of
-- before it was kept, and for those whom an identity provider knows.
ALTER TABLE access_person ADD COLUMN vouched_by TEXT;
ALTER TABLE access_person ADD COLUMN vouched_at BIGINT;

-- When it last changed what a connection believes of its people. Nothing where it did not since this is kept.
ALTER TABLE access_connection ADD COLUMN believed_at BIGINT;
