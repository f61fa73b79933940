-- Who a person is to a SCIM connector, where their connection says that its people are that one's: as they came last.
ALTER TABLE access_person ADD COLUMN directory_connector UUID;
ALTER TABLE access_person ADD COLUMN directory_id TEXT;
