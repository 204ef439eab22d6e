-- Writes orders, each with all that belongs to it: see `create.rs`.
WITH input AS MATERIALIZED (
    SELECT t.*,
           -- The order that has the reference already.
           CASE WHEN t.reference IS NOT NULL THEN (
               SELECT o.id FROM orders o
               WHERE o.tenant_id = t.tenant_id AND o.customer_id = t.customer_id AND o.reference = t.reference AND o.id <> t.id
           ) END AS taken_by,
           -- Nothing may come into a tenant behind its removal. The default one is never removed.
           CASE WHEN t.tenant_id = 1 THEN true ELSE coalesce(
               (SELECT x.removal_began_at IS NULL FROM tenants x WHERE x.id = t.tenant_id), false) END AS is_open
    FROM unnest(
        $1::bigint[], $2::integer[], $3::bigint[], $4::date[], $5::numeric[], $6::timestamptz[], $7::text[], $8::text[],
        $9::bigint[], $10::text[], $11::bytea[], $12::bytea[], $13::smallint[], $14::text[], $15::bytea[],
        $16::uuid[], $17::text[], $18::text[]
    ) AS t(id, tenant_id, customer_id, order_date, total_amount, at, reference, metadata,
           caller, key, request_hash, context_hash, response_status, headers, body,
           event_id, event_type, payload)
), claimed AS (
    INSERT INTO idempotency_keys AS held
        (customer_id, key, request_hash, context_hash, status, headers, body)
    SELECT caller, key, request_hash, context_hash, response_status, headers::json, body FROM input
    WHERE key IS NOT NULL AND taken_by IS NULL AND is_open ORDER BY caller, key
    ON CONFLICT (customer_id, key) DO UPDATE
        SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
            headers = excluded.headers, body = excluded.body, created_at = now()
        WHERE held.created_at <= now() - interval '24 hours'
    RETURNING customer_id, key
), allowed AS MATERIALIZED (
    SELECT * FROM input
    WHERE taken_by IS NULL AND is_open AND (key IS NULL OR (caller, key) IN (SELECT customer_id, key FROM claimed))
), inserted_orders AS (
    INSERT INTO orders
        (id, tenant_id, customer_id, order_date, status, total_amount, version, created_at, updated_at, reference, metadata)
    SELECT id, tenant_id, customer_id, order_date, 'PENDING', total_amount, 1, at, at, reference, metadata FROM allowed
    ORDER BY reference, tenant_id, customer_id
), inserted_lines AS (
    INSERT INTO order_lines (id, order_id, position, product_id, quantity, unit_price, tenant_id)
    SELECT l.*, a.tenant_id
    FROM unnest($19::bigint[], $20::bigint[], $21::smallint[], $22::bigint[], $23::integer[], $24::numeric[])
         AS l(id, order_id, position, product_id, quantity, unit_price)
    JOIN allowed a ON a.id = l.order_id
), logged_events AS (
    INSERT INTO outbox (event_id, event_type, order_id, version, payload, tenant_id)
    SELECT event_id, event_type, id, 1, payload, tenant_id FROM allowed
)
-- Those that were not written.
SELECT id AS "id!", taken_by, is_open AS "is_open!" FROM input
WHERE taken_by IS NOT NULL OR NOT is_open OR (key IS NOT NULL AND (caller, key) NOT IN (SELECT customer_id, key FROM claimed))
