-- Indexes that only the program of the version before reads. In a database that has orders it may still be running, and its
-- lists would read whole tables without them; the next version drops them. `docs/DEPLOY.md` says how to do so earlier.
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM orders) THEN
        DROP INDEX orders_by_customer, orders_by_creation, order_lines_by_product;
    END IF;
END
$$;
