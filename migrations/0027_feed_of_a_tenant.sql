SET LOCAL lock_timeout = '2s';

-- The next `most` events after the position `after`, in order, for a reader of one tenant; null stands for every tenant. Of
-- other tenants' events only the positions are returned, with no type, order and payload; of events that were removed with
-- their tenant also no tenant. So a position without a row was dropped after the retention.
CREATE FUNCTION log_feed(after bigint, most integer, reader integer) RETURNS TABLE (
    "position" bigint, sequenced_at timestamptz, tenant_id integer, event_type text, order_id bigint, payload text
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
BEGIN
    -- `OFFSET 0` keeps the parts apart, so that each row of a part costs one probe of the primary key.
    RETURN QUERY
    WITH spans AS MATERIALIZED (
        SELECT p.at, p.days, r.low, r.high, p.removed,
               p.first + (sum(r.high - r.low) OVER (PARTITION BY p.first ORDER BY r.low))::bigint - (r.high - r.low) AS position
        FROM (SELECT g.* FROM log_pages g
              WHERE g.first >= coalesce((SELECT max(f.first) FROM log_pages f WHERE f.first <= after + 1), 0)
                AND g.first <= after + most
              OFFSET 0) p
        CROSS JOIN LATERAL (SELECT lower(i) AS low, upper(i) AS high FROM unnest(p.ids) i) r
    ), wanted AS MATERIALIZED (
        SELECT s.at, s.days, s.removed, s.position - s.low AS shift, greatest(s.low, s.low + after + 1 - s.position) AS low,
               least(s.high, s.low + after + 1 + most - s.position) AS high
        FROM spans s
    )
    SELECT w.shift + o.id, w.at, o.tenant_id, o.event_type, o.order_id, o.payload
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT e.id, e.tenant_id,
               CASE WHEN e.tenant_id = coalesce(reader, e.tenant_id) THEN e.event_type END AS event_type,
               CASE WHEN e.tenant_id = coalesce(reader, e.tenant_id) THEN e.order_id END AS order_id,
               CASE WHEN e.tenant_id = coalesce(reader, e.tenant_id) THEN e.payload END AS payload
        FROM outbox e
        WHERE e.id >= w.low AND e.id < w.high AND e.day >= lower(w.days) AND e.day < upper(w.days)
        OFFSET 0) o
    UNION ALL
    SELECT w.shift + gone.id, w.at, NULL, NULL, NULL, NULL
    FROM wanted w
    CROSS JOIN LATERAL unnest(w.removed * int8multirange(int8range(w.low, greatest(w.low, w.high)))) part
    CROSS JOIN LATERAL generate_series(lower(part), upper(part) - 1) AS gone(id)
    ORDER BY 1;
END
$$;
