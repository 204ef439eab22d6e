-- The event is taken as a whole by every statement, and PostgreSQL parsed it with every insert. `payload::json` reads it.
ALTER TABLE outbox ALTER COLUMN payload TYPE text;
