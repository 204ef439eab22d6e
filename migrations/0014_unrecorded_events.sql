-- How far the history is behind the log, for health, metrics and autoscalers.
--
-- Looks at up to `most` events after the id `after`, in id order. An event that stands in `dead_letters` and was not sent
-- again is accounted for, as in `outbox_missing`.
--   seen      how many events were looked at, and `last`, the highest id of them
--   missing   how many of them the history lacks, `first`, the lowest id of those, and `oldest`, when the first was recorded
--             in the log
--   complete  up to this id nothing is missing, and everything was recorded in the log before `settled_before`
--
-- The settings pin the plan: one index probe per event. Scalar subqueries stay that; EXISTS might become a hash of the
-- whole history.
CREATE FUNCTION outbox_unrecorded(
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
           coalesce(min(e.id) FILTER (WHERE NOT e.accounted OR e.recorded_at >= settled_before) - 1, max(e.id), after)
    INTO seen, last, missing, first, oldest, complete
    FROM (
        SELECT f.id, f.recorded_at, f.found OR coalesce(
                   (SELECT true FROM dead_letters d
                    WHERE d.order_id = f.order_id AND d.event_id = f.event_id AND d.redriven_at IS NULL LIMIT 1),
                   false) AS accounted
        FROM (
            SELECT s.*, coalesce(
                       (SELECT true FROM order_history h
                        WHERE h.order_id = s.order_id AND h.version = s.version LIMIT 1), false) AS found
            FROM (
                SELECT o.id, o.order_id, o.event_id, o.version, o.recorded_at
                FROM outbox o WHERE o.id > after ORDER BY o.id LIMIT most
            ) s
            OFFSET 0
        ) f
        OFFSET 0
    ) e;
END
$$;
