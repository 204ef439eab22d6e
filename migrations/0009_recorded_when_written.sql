-- `now()` is when the statement's transaction began: a row that waited for a lock on its table claimed to have been there all the
-- while. `clock_timestamp()` is when the row is written, after such a wait.
ALTER TABLE order_history ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
ALTER TABLE dead_letters ALTER COLUMN failed_at SET DEFAULT clock_timestamp();
ALTER TABLE cache_debts ALTER COLUMN owed_since SET DEFAULT clock_timestamp();
