-- The place in a trace (a W3C traceparent) that a command or an operation was asked at, where traces were on.
ALTER TABLE commands_command ADD COLUMN trace TEXT;
ALTER TABLE commands_operation ADD COLUMN trace TEXT;
-- Into whose traces a device may speak.
CREATE INDEX commands_command_traced ON commands_command (tenant_id, device_id, command_id) WHERE trace IS NOT NULL;
