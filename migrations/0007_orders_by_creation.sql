-- Read backwards for the newest first. New orders then come last, where PostgreSQL neither looks for their place from the
-- root nor splits full pages in halves.
DROP INDEX orders_by_creation;
CREATE INDEX orders_by_creation ON orders (created_at, id)
    INCLUDE (customer_id, status, order_date, total_amount);
