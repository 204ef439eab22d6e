-- no-transaction
-- A customer gives a reference once. It finds the order by it, and an admin finds the orders of all customers of its tenant with it.
-- Built beside running writers.
CREATE UNIQUE INDEX CONCURRENTLY orders_by_reference ON orders (tenant_id, reference, customer_id) WHERE reference IS NOT NULL;
