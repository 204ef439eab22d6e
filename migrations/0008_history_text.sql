-- Written once for each event and read seldom: PostgreSQL need not parse it with every insert, since the worker has read
-- it. `changes::json` reads it.
ALTER TABLE order_history ALTER COLUMN changes TYPE text;
