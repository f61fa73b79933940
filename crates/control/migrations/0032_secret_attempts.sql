-- The id of the key that an attempt to rotate wrote to a store: the next attempt takes it instead of writing another value.
ALTER TABLE secrets_record ADD COLUMN attempt TEXT;

-- Whoever asked for another key asked for the end of the others as well.
ALTER TABLE secrets_record ADD COLUMN revoke_asked BOOLEAN NOT NULL DEFAULT FALSE;
