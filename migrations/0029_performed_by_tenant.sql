-- Who did something has a number in its own tenant. That is the tenant of the order, unless an operator acted in another one.

SET LOCAL lock_timeout = '1s';

-- The tenant of who did it, if the order is of another one; else null. No row is written for it.
ALTER TABLE order_history ADD COLUMN performed_by_tenant integer;
