-- Who signed a certificate, for which key, and what is to be signed where the signature has not come yet.

ALTER TABLE certificates_certificate ADD COLUMN authority TEXT;

ALTER TABLE certificates_certificate ADD COLUMN spki_sha256 BYTEA;

ALTER TABLE certificates_certificate ADD COLUMN to_sign BYTEA;

CREATE INDEX certificates_certificate_key ON certificates_certificate (tenant_id, spki_sha256);

CREATE INDEX certificates_certificate_revoked ON certificates_certificate (authority, revoked_at);

CREATE INDEX certificates_certificate_serial ON certificates_certificate (serial);

-- What each tenant's log says of the device CAs, so that a change of the register is recorded once.
CREATE TABLE certificates_authority (
    tenant_id UUID NOT NULL,
    authority TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, authority)
);
