-- no-transaction
-- A customer's list, as orders_by_customer was. Built beside running writers.
CREATE INDEX CONCURRENTLY orders_by_tenant_customer ON orders (tenant_id, customer_id, created_at DESC, id DESC)
    INCLUDE (status, order_date, total_amount);
