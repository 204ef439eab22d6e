-- Removing a tenant with everything of it, in small steps that a worker can be killed between. How far it has come is in the
-- tenant's row, which goes last.

SET LOCAL lock_timeout = '2s';

ALTER TABLE tenants
    -- What is being removed; null until the first step.
    ADD COLUMN removal_step text,
    -- How far that has come: the position of a page of the log, or the number of an order.
    ADD COLUMN removal_after bigint NOT NULL DEFAULT 0,
    -- How many events, orders and entries of the history are gone.
    ADD COLUMN removed_events bigint NOT NULL DEFAULT 0,
    ADD COLUMN removed_orders bigint NOT NULL DEFAULT 0,
    ADD COLUMN removed_entries bigint NOT NULL DEFAULT 0;

-- Removes a tenant's events from the next pages of the log after the position `after`, and notes which they were: their
-- positions stay used. Only what is published is looked at. `last` is the last of these pages; null if there is none.
CREATE FUNCTION log_remove(tenant integer, after bigint, pages integer, OUT last bigint, OUT removed bigint)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
DECLARE
    page log_pages;
    part int8range;
    gone int8multirange;
BEGIN
    removed := 0;
    FOR page IN
        SELECT p.* FROM log_pages p
        WHERE p.first > after AND p.first + p.events - 1 <= (SELECT r.published_position FROM relay r)
        ORDER BY p.first LIMIT pages FOR UPDATE OF p
    LOOP
        last := page.first;
        FOR part IN SELECT unnest(page.ids) LOOP
            WITH deleted AS (
                DELETE FROM outbox e
                WHERE e.id >= lower(part) AND e.id < upper(part) AND e.day >= lower(page.days) AND e.day < upper(page.days)
                  AND e.tenant_id = tenant
                RETURNING e.id)
            SELECT range_agg(int8range(d.id, d.id, '[]')) INTO gone FROM deleted d;
            IF gone IS NOT NULL THEN
                UPDATE log_pages p SET removed = p.removed + gone WHERE p.first = page.first;
                removed := removed + (SELECT sum(upper(g) - lower(g)) FROM unnest(gone) g);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Whether a tenant has events in the log that are not published yet, with or without a position.
CREATE FUNCTION log_is_published(tenant integer) RETURNS boolean
LANGUAGE sql STABLE
RETURN (
    SELECT r.head = r.published_position AND NOT EXISTS (
        SELECT FROM outbox o
        WHERE o.xid >= pg_snapshot_xmin(r.sequenced) AND NOT pg_visible_in_snapshot(o.xid, r.sequenced) AND o.tenant_id = tenant)
    FROM relay r
);
