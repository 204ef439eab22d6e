-- no-transaction
-- The filter by product, as order_lines_by_product was. Built beside running writers.
CREATE INDEX CONCURRENTLY order_lines_by_tenant_product ON order_lines (tenant_id, product_id, order_id);
