-- The person as the identity provider named them at sign-in, as JSON: what a request to end sessions names, in either direction.
ALTER TABLE access_session ADD COLUMN provider_name TEXT;
