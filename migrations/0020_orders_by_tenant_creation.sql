-- no-transaction
-- An admin's list over all customers of its tenant, as orders_by_creation was. Built beside running writers.
CREATE INDEX CONCURRENTLY orders_by_tenant_creation ON orders (tenant_id, created_at, id)
    INCLUDE (customer_id, status, order_date, total_amount);
