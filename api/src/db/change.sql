-- Writes changes, each only if its order still is at the version it was read at: see `change.rs`.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::bigint[], $2::bigint[], $3::boolean[], $4::date[], $5::text[], $6::numeric[], $7::timestamptz[],
        $8::bigint[], $9::text[], $10::bytea[], $26::bytea[], $11::smallint[], $12::text[], $13::bytea[],
        $14::uuid[], $15::text[], $16::text[]
    ) AS t(id, version, deletes, order_date, status, total_amount, at,
           caller, key, request_hash, context_hash, answer_status, headers, body, event_id, event_type, payload)
), locked AS MATERIALIZED (
    SELECT o.id FROM input i JOIN orders o ON o.id = i.id AND o.version = i.version
    ORDER BY o.id FOR UPDATE OF o SKIP LOCKED
), taken AS (
    INSERT INTO idempotency_keys AS held
        (customer_id, key, request_hash, context_hash, status, headers, body, created_at)
    SELECT caller, key, request_hash, context_hash, answer_status, headers::json, body, $25::timestamptz
    FROM input JOIN locked USING (id)
    WHERE key IS NOT NULL ORDER BY caller, key
    ON CONFLICT (customer_id, key) DO UPDATE
        SET request_hash = excluded.request_hash, context_hash = excluded.context_hash, status = excluded.status,
            headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
        WHERE held.created_at <= excluded.created_at - interval '24 hours'
    RETURNING customer_id, key
), allowed AS MATERIALIZED (
    SELECT i.* FROM input i JOIN locked USING (id)
    WHERE i.key IS NULL OR (i.caller, i.key) IN (SELECT customer_id, key FROM taken)
), changed AS (
    UPDATE orders o
    SET order_date = a.order_date, status = a.status, total_amount = a.total_amount,
        version = a.version + 1, updated_at = a.at
    FROM allowed a WHERE o.id = a.id AND NOT a.deletes
), gone AS (
    DELETE FROM orders o USING allowed a WHERE o.id = a.id AND a.deletes
), unlined AS (
    DELETE FROM order_lines l USING allowed a
    WHERE l.order_id = a.id AND a.id = ANY($17) AND NOT l.id = ANY($18)
), lined AS (
    INSERT INTO order_lines (id, order_id, position, product_id, quantity, unit_price)
    SELECT * FROM unnest(
        $19::bigint[], $20::bigint[], $21::smallint[], $22::bigint[], $23::integer[], $24::numeric[]
    ) AS l(id, order_id, position, product_id, quantity, unit_price)
    WHERE order_id IN (SELECT id FROM allowed)
    ON CONFLICT (order_id, id) DO UPDATE
        SET position = excluded.position, quantity = excluded.quantity, unit_price = excluded.unit_price
), announced AS (
    INSERT INTO outbox (event_id, event_type, order_id, version, payload)
    SELECT event_id, event_type, id, version + 1, payload FROM allowed
)
SELECT i.id AS "id!", l.id IS NOT NULL AS "locked!", a.id IS NOT NULL AS "written!"
FROM input i LEFT JOIN locked l USING (id) LEFT JOIN allowed a USING (id)
