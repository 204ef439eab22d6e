-- Each event of the log gets a position: a whole number, dense from 1, the same for every reader and for good. The relay
-- gives positions out ("sequences") before it publishes, so that publishing, the event feed and everything else that reads
-- the log has an integer for a cursor. Snapshots and transaction ids matter only for sequencing.
--
-- The program of the version before knows none of this: it publishes behind `relay.published`, which keeps its meaning.

SET lock_timeout = '2s';

-- A row for each page of up to 500 events, never for each event: the write path of orders knows nothing of positions.
CREATE TABLE log_pages (
    -- The position of its first event. Pages follow each other without a hole.
    first  bigint         PRIMARY KEY,
    events integer        NOT NULL CHECK (events > 0),
    -- Exactly the ids of its events in `outbox`; positions follow their order.
    ids    int8multirange NOT NULL,
    -- The days of these rows, so that a reader opens only the partitions that hold them.
    days   daterange      NOT NULL,
    -- When it was sequenced.
    at     timestamptz    NOT NULL DEFAULT clock_timestamp()
);

-- The position of a given event, for repairs.
CREATE INDEX log_pages_by_id ON log_pages USING gist (ids);

-- A log whose end was lost (a restored dump, a promoted standby that lacked commits) gives the same positions to other events.
-- Therefore a cursor names the era it was issued in: it is good up to the position at which the next era began.
CREATE TABLE log_eras (
    number            integer     PRIMARY KEY,
    -- What cursors name. Random, because two copies of one database go on differently.
    key               integer     NOT NULL DEFAULT (random() * 2147483646)::integer,
    -- The last position that it has in common with the era before.
    after             bigint      NOT NULL,
    -- The cluster and its timeline, by which the next era is noticed.
    system_identifier bigint      NOT NULL,
    timeline          bigint      NOT NULL,
    began_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE relay
    -- Everything visible in this snapshot has its position. `1:1:` stands for nothing at all.
    ADD COLUMN sequenced pg_snapshot NOT NULL DEFAULT '1:1:',
    -- The last position that was given out.
    ADD COLUMN head bigint NOT NULL DEFAULT 0,
    -- All events up to this position are published.
    ADD COLUMN published_position bigint NOT NULL DEFAULT 0;

-- The timeline that this server writes: it grows with each promotion.
CREATE FUNCTION log_timeline() RETURNS bigint
LANGUAGE sql STABLE
RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint;

-- Gives positions after `head` to the events that `upto` shows and `since` did not, in the order of their ids. Returns how
-- many they are. `base` is as in `outbox_window`. The caller holds the row of the relay.
CREATE FUNCTION log_append(since pg_snapshot, upto pg_snapshot, base bigint, head bigint, page integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
DECLARE
    appended bigint;
BEGIN
    WITH new AS (
        SELECT o.id, o.day FROM outbox o
        WHERE o.xid >= pg_snapshot_xmax(since) AND o.xid < pg_snapshot_xmax(upto)
          AND o.id > base AND pg_visible_in_snapshot(o.xid, upto)
        UNION ALL
        SELECT l.id, l.day FROM unnest(outbox_late(since, upto)) AS x, LATERAL (
            SELECT o.id, o.day FROM outbox o WHERE (o.xid, o.id) > (x, base) AND o.xid <= x) l
    ), numbered AS (
        SELECT n.id, n.day, row_number() OVER (ORDER BY n.id) - 1 AS number FROM new n
    ), pages AS (
        INSERT INTO log_pages (first, events, ids, days)
        SELECT head + 1 + min(n.number), count(*), range_agg(int8range(n.id, n.id, '[]')),
               daterange(min(n.day), max(n.day), '[]')
        FROM numbered n GROUP BY n.number / page
        RETURNING events
    )
    SELECT coalesce(sum(p.events), 0) INTO appended FROM pages p;
    RETURN appended;
END
$$;

-- Gives positions to every event that has none, and begins a new row of snapshots: for the first time, and after the snapshots
-- of the relay have lost their meaning. Transactions that are open now are found by the next step.
CREATE FUNCTION log_append_all(page integer, OUT appended bigint, OUT first_unpublished bigint, OUT sequenced pg_snapshot, OUT restored bigint)
LANGUAGE plpgsql VOLATILE
SET jit = off
AS $$
BEGIN
    -- One statement has one snapshot, so `pg_current_snapshot` shows exactly the rows that are numbered here.
    WITH new AS (
        SELECT o.id, o.day, o.xid, row_number() OVER (ORDER BY o.id) AS number
        FROM outbox o WHERE NOT EXISTS (SELECT FROM log_pages p WHERE p.ids @> o.id)
    ), pages AS (
        INSERT INTO log_pages (first, events, ids, days)
        SELECT r.head + min(n.number), count(*), range_agg(int8range(n.id, n.id, '[]')),
               daterange(min(n.day), max(n.day), '[]')
        FROM new n, relay r GROUP BY r.head, (n.number - 1) / page
        RETURNING events
    )
    SELECT coalesce((SELECT sum(p.events) FROM pages p), 0),
           (SELECT r.head + min(n.number) FROM new n
            WHERE NOT (pg_snapshot_xmax(r.published) <> '1'
                       AND (n.id <= r.restored OR pg_visible_in_snapshot(n.xid, r.published)))),
           pg_current_snapshot(),
           -- What we see and what is no past transaction of this cluster came with a restore.
           greatest(r.restored, (SELECT max(o.id) FROM outbox o WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot())))
    INTO appended, first_unpublished, sequenced, restored
    FROM relay r;
END
$$;

-- Whether what is published shows more than what is sequenced: a program of the version before held the lease meanwhile.
CREATE FUNCTION log_was_passed(cursor relay) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN pg_snapshot_xmax((cursor).published) >= pg_snapshot_xmax((cursor).sequenced)
    AND (cursor).published::text <> (cursor).sequenced::text
    AND NOT EXISTS (SELECT FROM pg_snapshot_xip((cursor).published) x WHERE pg_visible_in_snapshot(x, (cursor).sequenced));

-- Whether the snapshots of the relay are those of another cluster, or of a later time of this one, as after a restore.
CREATE FUNCTION log_was_restored(cursor relay, upto pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE
RETURN (cursor).system_identifier <> (SELECT system_identifier FROM pg_control_system())
    OR greatest(pg_snapshot_xmax((cursor).sequenced), pg_snapshot_xmax((cursor).published)) > pg_snapshot_xmax(upto);

-- Sequences: gives every committed event that has no position one, under the owner and epoch of the lease, which it also
-- renews for `lifetime`. `events` is how many got a position, and null if the lease is lost; `started_over` says that a restore
-- was noticed.
--
-- The row of the relay is locked first, and the snapshot is taken after that: two steps never overlap, so positions are dense
-- and given out once, also while an old owner wakes up. The order is that of the ids in each step. Ids of one order ascend with
-- its version, and a version is not visible before the one below it, so positions of one order ascend, too.
CREATE FUNCTION log_sequence(
    holder uuid, held_epoch bigint, lifetime interval, page integer DEFAULT 500, OUT events bigint, OUT started_over boolean
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    cursor relay;
    era log_eras;
    upto pg_snapshot;
    cluster bigint := (SELECT system_identifier FROM pg_control_system());
    total bigint := 0;
    everything record;
BEGIN
    started_over := false;
    SELECT r.* INTO cursor FROM relay r WHERE r.singleton AND r.owner = holder AND r.epoch = held_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Nobody may see a position that a crash could take back.
    PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';

    SELECT e.* INTO era FROM log_eras e ORDER BY e.number DESC LIMIT 1;
    IF era.number IS NULL OR era.system_identifier <> cluster OR era.timeline <> log_timeline() THEN
        INSERT INTO log_eras (number, after, system_identifier, timeline)
        VALUES (coalesce(era.number, 0) + 1, cursor.head, cluster, log_timeline());
    END IF;

    upto := pg_current_snapshot();
    IF log_was_restored(cursor, upto) THEN
        -- Restored: nobody knows what was published meanwhile. All of it is published again, which does no harm.
        started_over := true;
        SELECT a.* INTO everything FROM log_append_all(page) a;
        total := everything.appended;
        cursor.published := '1:1:';
        cursor.window_end := NULL;
        cursor.window_last := NULL;
        cursor.restored := everything.restored;
        cursor.sequenced := everything.sequenced;
        cursor.published_position := coalesce((SELECT min(p.first) - 1 FROM log_pages p), cursor.head + total);
    ELSIF pg_snapshot_xmax(cursor.sequenced) = '1' THEN
        -- For the first time: the version before has published a part.
        SELECT a.* INTO everything FROM log_append_all(page) a;
        total := everything.appended;
        cursor.restored := everything.restored;
        cursor.sequenced := everything.sequenced;
        cursor.published_position := coalesce(everything.first_unpublished - 1, cursor.head + total);
    ELSE
        IF log_was_passed(cursor) THEN
            -- The program of the version before has published all of this.
            total := log_append(cursor.sequenced, cursor.published, cursor.restored, cursor.head, page);
            cursor.sequenced := cursor.published;
            cursor.published_position := cursor.head + total;
        END IF;
        total := total + log_append(cursor.sequenced, upto, cursor.restored, cursor.head + total, page);
        cursor.sequenced := upto;
    END IF;
    UPDATE relay r
    SET published = cursor.published, window_end = cursor.window_end, window_last = cursor.window_last,
        system_identifier = cluster, restored = cursor.restored, sequenced = cursor.sequenced, head = cursor.head + total,
        published_position = cursor.published_position,
        expires_at = clock_timestamp() + lifetime, updated_at = clock_timestamp()
    WHERE r.singleton;
    events := total;
END
$$;

-- Whether there are events without a position. Locks and writes nothing, so that an idle log costs nothing.
CREATE FUNCTION log_has_new() RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    upto pg_snapshot := pg_current_snapshot();
    cursor relay;
BEGIN
    SELECT r.* INTO STRICT cursor FROM relay r;
    RETURN pg_snapshot_xmax(cursor.sequenced) = '1'
        OR log_was_restored(cursor, upto)
        OR (SELECT w.events > 0 FROM outbox_window(cursor.sequenced, upto, cursor.restored, 1) w);
END
$$;

-- The next `most` events after the position `after`, in order. A position whose row is gone is left out: it was dropped after
-- the retention.
CREATE FUNCTION log_events(after bigint, most integer) RETURNS TABLE (
    "position" bigint, sequenced_at timestamptz, id bigint, event_id uuid, event_type text, order_id bigint, version bigint,
    payload text, recorded_at timestamptz
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
BEGIN
    -- `OFFSET 0` keeps the parts apart, so that each row of a part costs one probe of the primary key.
    RETURN QUERY
    SELECT s.position + (o.id - s.low), s.at, o.id, o.event_id, o.event_type, o.order_id, o.version, o.payload, o.recorded_at
    FROM (
        SELECT p.at, p.days, r.low, r.high,
               p.first + (sum(r.high - r.low) OVER (PARTITION BY p.first ORDER BY r.low))::bigint - (r.high - r.low) AS position
        FROM (SELECT g.* FROM log_pages g
              WHERE g.first >= coalesce((SELECT max(f.first) FROM log_pages f WHERE f.first <= after + 1), 0)
                AND g.first <= after + most
              OFFSET 0) p
        CROSS JOIN LATERAL (SELECT lower(i) AS low, upper(i) AS high FROM unnest(p.ids) i) r
        OFFSET 0) s
    CROSS JOIN LATERAL (
        SELECT e.* FROM outbox e
        WHERE e.id >= greatest(s.low, s.low + after + 1 - s.position) AND e.id < least(s.high, s.low + after + 1 + most - s.position)
          AND e.day >= lower(s.days) AND e.day < upper(s.days)
        OFFSET 0) o
    ORDER BY 1;
END
$$;

-- The position of an event; null if it has none.
CREATE FUNCTION log_position(event bigint) RETURNS bigint
LANGUAGE sql STABLE
RETURN (
    SELECT p.first + (SELECT coalesce(sum(least(upper(r), event) - lower(r)), 0)::bigint FROM unnest(p.ids) r WHERE lower(r) < event)
    FROM log_pages p WHERE p.ids @> event
);

-- What is not published yet: how many events (exact but for those without a position beyond `most`), and when the first of them
-- was recorded. Cheap however long the backlog.
CREATE FUNCTION log_backlog(most integer, OUT unpublished bigint, OUT oldest timestamptz)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    upto pg_snapshot := pg_current_snapshot();
    cursor relay;
    new record;
BEGIN
    SELECT r.* INTO STRICT cursor FROM relay r;
    IF log_was_passed(cursor) OR pg_snapshot_xmax(cursor.sequenced) = '1' THEN
        SELECT b.unpublished, b.oldest INTO unpublished, oldest FROM outbox_backlog(most) b;
        RETURN;
    END IF;
    SELECT w.* INTO new FROM outbox_window(cursor.sequenced, upto, cursor.restored, most + 1) w;
    IF new.events > most THEN
        new.events := greatest(new.events, (SELECT max(o.id) FROM outbox o) - coalesce(new.low, 0));
    END IF;
    unpublished := cursor.head - cursor.published_position + new.events;
    IF cursor.head > cursor.published_position THEN
        SELECT min(e.recorded_at) INTO oldest FROM log_events(cursor.published_position, 100) e;
    ELSIF new.events > 0 THEN
        SELECT min(p.recorded_at) INTO oldest
        FROM outbox_page(cursor.sequenced, upto, new.late, cursor.restored, new.low, new.high, 100) p;
    END IF;
END
$$;

-- Drops the partition of a day, and the pages up to the last one that had an event of this day. Answers whether it was there.
CREATE OR REPLACE FUNCTION outbox_drop_partition(for_day date) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    partition text := 'outbox_' || to_char(for_day, 'YYYYMMDD');
BEGIN
    LOCK TABLE outbox IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(partition) IS NULL THEN
        RETURN false;
    END IF;
    PERFORM log_forget(for_day);
    EXECUTE format('DROP TABLE %I', partition);
    RETURN true;
END
$$;

-- Deletes the pages up to the last one that has an event of this day or an earlier one: the log begins after them. Returns how
-- many pages these were.
CREATE FUNCTION log_forget(last_day date) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    WITH forgotten AS (
        DELETE FROM log_pages WHERE first <= (SELECT max(first) FROM log_pages WHERE lower(days) <= last_day) RETURNING 1)
    SELECT count(*) FROM forgotten;
END;
