-- What could be left of a removed tenant, and what the clock of the database could hold up.

SET LOCAL lock_timeout = '2s';

-- Migration 16 copied ended sessions before its triggers were there: a session that ended between the two would have lived on.
INSERT INTO ended_sessions AS current
SELECT 1, customer_id, generation, ended_at FROM session_generations
ON CONFLICT (tenant_id, customer_id) DO UPDATE
SET generation = greatest(current.generation, excluded.generation), ended_at = greatest(current.ended_at, excluded.ended_at);

-- An event of a tenant that is gone or is being removed is accounted for, because its history is gone, too, or is refused. An event of
-- the future was recorded before the clock was set back: how old it is cannot be known, and what comes after it must not wait until the
-- clock gets there.
CREATE OR REPLACE FUNCTION outbox_missing(
    after bigint, upto bigint, most integer, published pg_snapshot, restored bigint, recorded_before timestamptz,
    OUT seen bigint, OUT last bigint, OUT young bigint, OUT verified bigint, OUT recorded bigint, OUT missing bigint[]
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
BEGIN
    SELECT count(*), max(e.id), count(*) FILTER (WHERE NOT e.settled),
           coalesce(min(e.id) FILTER (WHERE NOT e.settled OR NOT e.accounted) - 1, max(e.id)),
           max(e.id) FILTER (WHERE e.found),
           coalesce(array_agg(e.id) FILTER (WHERE e.settled AND NOT e.accounted), '{}')
    INTO seen, last, young, verified, recorded, missing
    FROM (
        SELECT f.id, f.settled, f.found,
               CASE WHEN f.found THEN true ELSE coalesce(
                   (SELECT true FROM dead_letters d
                    WHERE d.order_id = f.order_id AND d.event_id = f.event_id AND d.redriven_at IS NULL LIMIT 1),
                   (SELECT false FROM tenants t WHERE t.id = f.tenant_id AND t.removal_began_at IS NULL), true) END AS accounted
        FROM (
            -- Scalar subqueries stay one index probe per event; EXISTS might become a hash of the whole history.
            SELECT s.*, coalesce(
                       (SELECT true FROM order_history h
                        WHERE h.order_id = s.order_id AND h.version = s.version LIMIT 1), false) AS found
            FROM (
                SELECT o.id, o.order_id, o.event_id, o.version, o.tenant_id,
                       (pg_visible_in_snapshot(o.xid, published) OR o.id <= restored)
                           AND (o.recorded_at < recorded_before OR o.recorded_at > now() + interval '1 minute') AS settled
                FROM outbox o
                WHERE o.id > after AND o.id <= upto
                ORDER BY o.id LIMIT most
            ) s
            OFFSET 0
        ) f
        OFFSET 0
    ) e;
END
$$;

CREATE OR REPLACE FUNCTION outbox_unrecorded(
    after bigint, most integer, settled_before timestamptz,
    OUT seen bigint, OUT last bigint, OUT missing bigint, OUT first bigint, OUT oldest timestamptz, OUT complete bigint
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
BEGIN
    SELECT count(*), max(e.id), count(*) FILTER (WHERE NOT e.accounted), min(e.id) FILTER (WHERE NOT e.accounted),
           min(e.recorded_at) FILTER (WHERE NOT e.accounted),
           coalesce(min(e.id) FILTER (WHERE NOT e.accounted OR NOT e.settled) - 1, max(e.id), after)
    INTO seen, last, missing, first, oldest, complete
    FROM (
        SELECT f.id, f.recorded_at,
               f.recorded_at < settled_before OR f.recorded_at > now() + interval '1 minute' AS settled,
               CASE WHEN f.found THEN true ELSE coalesce(
                   (SELECT true FROM dead_letters d
                    WHERE d.order_id = f.order_id AND d.event_id = f.event_id AND d.redriven_at IS NULL LIMIT 1),
                   (SELECT false FROM tenants t WHERE t.id = f.tenant_id AND t.removal_began_at IS NULL), true) END AS accounted
        FROM (
            SELECT s.*, coalesce(
                       (SELECT true FROM order_history h
                        WHERE h.order_id = s.order_id AND h.version = s.version LIMIT 1), false) AS found
            FROM (
                SELECT o.id, o.order_id, o.event_id, o.version, o.tenant_id, o.recorded_at
                FROM outbox o WHERE o.id > after ORDER BY o.id LIMIT most
            ) s
            OFFSET 0
        ) f
        OFFSET 0
    ) e;
END
$$;

-- Removes a tenant's events that have no page any more, because it was forgotten with an older day: they lie before the end of the
-- first page that is left. Returns how many.
CREATE FUNCTION log_remove_forgotten(tenant integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
DECLARE
    upto bigint;
    removed bigint;
BEGIN
    SELECT upper(p.ids) INTO upto FROM log_pages p ORDER BY p.first LIMIT 1;
    DELETE FROM outbox e
    WHERE e.id < coalesce(upto, 9223372036854775807) AND e.tenant_id = tenant
      AND NOT EXISTS (SELECT FROM log_pages p WHERE p.ids @> e.id);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

-- Whether all of a tenant's events in the log are published. Others' need not be. While very many of all tenants wait, the answer
-- is no, without looking.
CREATE OR REPLACE FUNCTION log_is_published(tenant integer) RETURNS boolean
LANGUAGE sql STABLE
RETURN (
    SELECT r.head - r.published_position <= 100000
        AND NOT EXISTS (
            SELECT FROM outbox o
            WHERE o.xid >= pg_snapshot_xmin(r.sequenced) AND NOT pg_visible_in_snapshot(o.xid, r.sequenced)
              AND o.tenant_id = tenant)
        AND NOT EXISTS (
            SELECT FROM log_pages p CROSS JOIN LATERAL unnest(p.ids) part
            JOIN outbox e ON e.id >= lower(part) AND e.id < upper(part) AND e.day >= lower(p.days) AND e.day < upper(p.days)
            WHERE p.first > r.published_position - 500 AND p.first + p.events - 1 > r.published_position
              AND e.tenant_id = tenant)
    FROM relay r
);
