//! Orders, log and history side by side, for `worker verify`.

use futures_util::stream::BoxStream;
use sqlx::PgConnection;
use uuid::Uuid;

/// One version of one order, as each store knows it. Also an order of which nothing is recorded.
#[derive(Clone, Debug)]
pub struct Version {
    /// The order.
    pub order_id: i64,
    /// The version; `None` where neither log nor history knows one.
    pub version: Option<i64>,
    /// The event in the log.
    pub logged: Option<Uuid>,
    /// The event in the history.
    pub recorded: Option<Uuid>,
    /// Whether only the history has the event, although the log still has the day on which it happened.
    pub unlogged: bool,
    /// Whether this version deleted the order, by the log where it has the event, else by the history.
    pub deletes: bool,
    /// Whether the history says what the log says, where both have it.
    pub history_agrees: Option<bool>,
    /// The order's version now; `None` where it does not exist.
    pub current: Option<i64>,
    /// The order's content in short.
    pub content: Option<String>,
    /// Whether the order is what the log says of this, its version now.
    pub order_agrees: Option<bool>,
}

/// Everything by order and version, of `only` these orders where given. One statement, so of one moment.
pub fn versions<'c>(
    connection: &'c mut PgConnection,
    only: Option<&'c [i64]>,
) -> BoxStream<'c, sqlx::Result<Version>> {
    sqlx::query_as!(
        Version,
        r#"SELECT order_id AS "order_id!", version AS "version?",
                  logged.event_id AS "logged?", recorded.event_id AS "recorded?",
                  coalesce(logged.event_type = 'OrderDeleted', recorded.action = 'DELETED', false) AS "deletes!",
                  -- A partition is a day; the clock that says when it happened is not the database's.
                  CASE WHEN logged.event_id IS NULL AND recorded.event_id IS NOT NULL THEN
                      to_regclass('outbox_' || to_char((recorded.occurred_at - interval '1 hour') AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
                      AND to_regclass('outbox_' || to_char((recorded.occurred_at + interval '1 hour') AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
                      ELSE false
                  END AS "unlogged!",
                  CASE WHEN logged.event_id IS NOT NULL AND recorded.event_id IS NOT NULL THEN
                      logged.event_id = recorded.event_id
                      AND recorded.action = CASE logged.event_type WHEN 'OrderCreated' THEN 'CREATED'
                                                                   WHEN 'OrderUpdated' THEN 'UPDATED'
                                                                   ELSE 'DELETED' END
                      AND recorded.occurred_at = (body ->> 'time')::timestamptz
                      AND recorded.customer_id = (body #>> '{data,customer_id}')::bigint
                      AND recorded.performed_by = (body #>> '{data,performed_by}')::bigint
                      AND recorded.changes::jsonb = body #> '{data,changes}'
                  END AS "history_agrees?",
                  existing.current AS "current?",
                  existing.content AS "content?",
                  CASE WHEN version = existing.current AND event_type <> 'OrderDeleted' THEN
                      existing.customer_id = (body #>> '{data,order,customer_id}')::bigint
                      -- Unlike a cast, this reads the year 0, which versions before this one took.
                      AND existing.order_date = to_date(body #>> '{data,order,order_date}', 'YYYY-MM-DD')
                      AND existing.status = body #>> '{data,order,status}'
                      AND existing.total_amount = (body #>> '{data,order,total_amount}')::numeric
                      AND existing.created_at = (body #>> '{data,order,created_at}')::timestamptz
                      AND existing.updated_at = (body #>> '{data,order,updated_at}')::timestamptz
                      AND existing.lines::jsonb = body #> '{data,order,lines}'
                  END AS "order_agrees?"
           FROM (
               -- Parsed once, for which `OFFSET 0` keeps the planner from merging this into the comparisons.
               (SELECT id, order_id, version, event_id, event_type, payload::jsonb AS body FROM outbox OFFSET 0) AS logged
               FULL JOIN order_history AS recorded USING (order_id, version)
           )
           FULL JOIN (
               SELECT id AS order_id, orders.version AS current, customer_id, order_date, status, total_amount,
                      created_at, updated_at, lines,
                      md5(concat_ws('|', customer_id, order_date, status, total_amount,
                                    extract(epoch FROM created_at), extract(epoch FROM updated_at), lines)) AS content
               FROM orders CROSS JOIN LATERAL (
                   SELECT json_agg(json_build_object('id', line.id, 'product_id', product_id, 'quantity', quantity,
                                                     'unit_price', unit_price::text) ORDER BY position)::text AS lines
                   FROM order_lines AS line WHERE line.order_id = orders.id
               ) AS their_lines
           ) AS existing USING (order_id)
           WHERE $1::bigint[] IS NULL OR order_id = ANY($1)
           ORDER BY order_id, version, logged.id"#,
        only
    )
    .fetch(connection)
}
