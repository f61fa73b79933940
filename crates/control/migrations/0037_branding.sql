-- How a tenant looks to its own people: at most one row for each.
CREATE TABLE branding_look (
    tenant_id UUID NOT NULL,
    display_name TEXT NOT NULL DEFAULT '',
    -- #rrggbb, or both empty.
    accent_light TEXT NOT NULL DEFAULT '',
    accent_dark TEXT NOT NULL DEFAULT '',
    support_mail TEXT NOT NULL DEFAULT '',
    support_phone TEXT NOT NULL DEFAULT '',
    support_url TEXT NOT NULL DEFAULT '',
    signin_notice TEXT NOT NULL DEFAULT '',
    -- A PNG of at most 64 KiB.
    logo BYTEA,
    -- Of tenant and content: where browsers fetch it.
    logo_address TEXT,
    logo_width BIGINT,
    logo_height BIGINT,
    changed_by TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id)
);

CREATE UNIQUE INDEX branding_look_logo ON branding_look (logo_address);
