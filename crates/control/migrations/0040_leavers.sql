-- Who comes by a link is found by it when the directory says that they left.
CREATE INDEX access_person_directory ON access_person (tenant_id, directory_connector, directory_id)
    WHERE directory_id IS NOT NULL;
