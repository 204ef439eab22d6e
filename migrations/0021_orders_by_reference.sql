-- no-transaction
-- A customer gives a reference once, and finds the order by it. Built beside running writers.
CREATE UNIQUE INDEX CONCURRENTLY orders_by_reference ON orders (tenant_id, customer_id, reference) WHERE reference IS NOT NULL;
