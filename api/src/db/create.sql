-- Writes orders, each with all that belongs to it: see `create.rs`.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::bigint[], $2::bigint[], $3::date[], $4::numeric[], $5::timestamptz[],
        $6::bigint[], $7::text[], $8::bytea[], $9::bytea[], $10::smallint[], $11::text[], $12::bytea[],
        $13::uuid[], $14::text[], $15::text[]
    ) AS t(id, customer_id, order_date, total_amount, at,
           caller, key, request_hash, context_hash, response_status, headers, body,
           event_id, event_type, payload)
), claimed AS (
    INSERT INTO idempotency_keys AS held
        (customer_id, key, request_hash, context_hash, status, headers, body)
    SELECT caller, key, request_hash, context_hash, response_status, headers::json, body FROM input
    WHERE key IS NOT NULL ORDER BY caller, key
    ON CONFLICT (customer_id, key) DO UPDATE
        SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
            headers = excluded.headers, body = excluded.body, created_at = now()
        WHERE held.created_at <= now() - interval '24 hours'
    RETURNING customer_id, key
), allowed AS MATERIALIZED (
    SELECT * FROM input
    WHERE key IS NULL OR (caller, key) IN (SELECT customer_id, key FROM claimed)
), inserted_orders AS (
    INSERT INTO orders (id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
    SELECT id, customer_id, order_date, 'PENDING', total_amount, 1, at, at FROM allowed
), inserted_lines AS (
    INSERT INTO order_lines (id, order_id, position, product_id, quantity, unit_price)
    SELECT * FROM unnest(
        $16::bigint[], $17::bigint[], $18::smallint[], $19::bigint[], $20::integer[], $21::numeric[]
    ) AS l(id, order_id, position, product_id, quantity, unit_price)
    WHERE order_id IN (SELECT id FROM allowed)
), logged_events AS (
    INSERT INTO outbox (event_id, event_type, order_id, version, payload)
    SELECT event_id, event_type, id, 1, payload FROM allowed
)
SELECT id FROM allowed
