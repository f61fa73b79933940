-- When the end of a tenant's own keys was asked for last, by a person or a program.
ALTER TABLE secrets_record ADD COLUMN revoked_at BIGINT;
