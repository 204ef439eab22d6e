-- Writes changes, each only if its order is still at the version at which it was read: see `change.rs`.
WITH input AS MATERIALIZED (
    SELECT t.*,
           -- Nothing may come into a tenant behind its removal. The default one is never removed.
           CASE WHEN t.tenant_id = 1 THEN true ELSE coalesce(
               (SELECT x.removal_began_at IS NULL FROM tenants x WHERE x.id = t.tenant_id), false) END AS is_open
    FROM unnest(
        $1::bigint[], $2::integer[], $3::bigint[], $4::boolean[], $5::date[], $6::text[], $7::numeric[], $8::timestamptz[],
        $9::text[], $10::text[],
        $11::bigint[], $12::text[], $13::bytea[], $14::bytea[], $15::smallint[], $16::text[], $17::bytea[],
        $18::uuid[], $19::text[], $20::text[]
    ) AS t(id, tenant_id, version, deletes, order_date, status, total_amount, at, reference, metadata,
           caller, key, request_hash, context_hash, response_status, headers, body,
           event_id, event_type, payload)
), locked AS MATERIALIZED (
    SELECT o.id, o.customer_id, o.reference AS reference_before
    FROM input i JOIN orders o ON o.id = i.id AND o.tenant_id = i.tenant_id AND o.version = i.version
    WHERE i.is_open
    ORDER BY o.id FOR UPDATE OF o SKIP LOCKED
), checked AS MATERIALIZED (
    SELECT i.*,
           -- The order that has the new reference already.
           CASE WHEN i.reference IS DISTINCT FROM l.reference_before THEN (
               SELECT o.id FROM orders o
               WHERE o.tenant_id = i.tenant_id AND o.customer_id = l.customer_id AND o.reference = i.reference
           ) END AS taken_by
    FROM input i JOIN locked l USING (id)
), claimed AS (
    INSERT INTO idempotency_keys AS held
        (customer_id, key, request_hash, context_hash, status, headers, body)
    SELECT caller, key, request_hash, context_hash, response_status, headers::json, body
    FROM checked
    WHERE key IS NOT NULL AND taken_by IS NULL ORDER BY caller, key
    ON CONFLICT (customer_id, key) DO UPDATE
        SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
            headers = excluded.headers, body = excluded.body, created_at = now()
        WHERE held.created_at <= now() - interval '24 hours'
    RETURNING customer_id, key
), allowed AS MATERIALIZED (
    SELECT * FROM checked
    WHERE taken_by IS NULL AND (key IS NULL OR (caller, key) IN (SELECT customer_id, key FROM claimed))
), updated_orders AS (
    UPDATE orders o
    SET order_date = a.order_date, status = a.status, total_amount = a.total_amount,
        version = a.version + 1, updated_at = a.at, reference = a.reference, metadata = a.metadata
    FROM allowed a WHERE o.id = a.id AND o.tenant_id = a.tenant_id AND NOT a.deletes
), deleted_orders AS (
    DELETE FROM orders o USING allowed a WHERE o.id = a.id AND o.tenant_id = a.tenant_id AND a.deletes
), deleted_lines AS (
    DELETE FROM order_lines l USING allowed a
    WHERE l.order_id = a.id AND l.tenant_id = a.tenant_id AND a.id = ANY($21) AND NOT l.id = ANY($22)
), written_lines AS (
    INSERT INTO order_lines (id, order_id, position, product_id, quantity, unit_price, tenant_id)
    SELECT l.*, a.tenant_id
    FROM unnest($23::bigint[], $24::bigint[], $25::smallint[], $26::bigint[], $27::integer[], $28::numeric[])
         AS l(id, order_id, position, product_id, quantity, unit_price)
    JOIN allowed a ON a.id = l.order_id
    ON CONFLICT (order_id, id) DO UPDATE
        SET position = excluded.position, quantity = excluded.quantity, unit_price = excluded.unit_price
), logged_events AS (
    INSERT INTO outbox (event_id, event_type, order_id, version, payload, tenant_id)
    SELECT event_id, event_type, id, version + 1, payload, tenant_id FROM allowed
)
SELECT i.id AS "id!", i.is_open AS "is_open!", c.id IS NOT NULL AS "locked!", c.taken_by, a.id IS NOT NULL AS "written!"
FROM input i LEFT JOIN checked c USING (id) LEFT JOIN allowed a USING (id)
