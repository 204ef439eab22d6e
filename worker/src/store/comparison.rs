//! Orders, log and history side by side, for `worker verify`.

use futures_util::stream::BoxStream;
use sqlx::PgConnection;
use uuid::Uuid;

/// One version of one order as each store has it. An order of which nothing is recorded has one row without a version.
#[derive(Clone, Debug)]
pub struct ComparedVersion {
    /// The order.
    pub order_id: i64,
    /// The version; `None` if neither log nor history has one.
    pub version: Option<i64>,
    /// The event in the log.
    pub logged: Option<Uuid>,
    /// The event in the history.
    pub recorded: Option<Uuid>,
    /// Only the history has the event, although the log still has the day on which it happened.
    pub unlogged: bool,
    /// This version deleted the order: by the log if it has the event, else by the history.
    pub deletes: bool,
    /// The history says what the log says; `None` unless both have the version.
    pub history_agrees: Option<bool>,
    /// The order's version now; `None` if the order does not exist.
    pub current: Option<i64>,
    /// A hash of the order with all its columns and lines.
    pub content: Option<String>,
    /// The order is what the log says of this version; `None` unless this is its version now.
    pub order_agrees: Option<bool>,
}

/// Reads everything by order and version, of `only` these orders if given, and of no tenant in `removing`. One statement, so all rows
/// are of one moment.
pub fn compare_versions<'c>(
    connection: &'c mut PgConnection,
    only: Option<&'c [i64]>,
    removing: &'c [i32],
) -> BoxStream<'c, sqlx::Result<ComparedVersion>> {
    sqlx::query_as!(
        ComparedVersion,
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
                      -- `EventType::action`: the type without `Order`.
                      AND recorded.action = upper(substr(logged.event_type, 6))
                      AND recorded.occurred_at = (body ->> 'time')::timestamptz
                      AND recorded.customer_id = (body #>> '{data,customer_id}')::bigint
                      AND recorded.performed_by = (body #>> '{data,performed_by}')::bigint
                      AND recorded.performed_by_tenant IS NOT DISTINCT FROM (body #>> '{data,performed_by_tenant}')::integer
                      AND recorded.changes::jsonb = body #> '{data,changes}'
                      AND recorded.tenant_id = logged.tenant_id AND recorded.tenant_id = said_tenant
                  END AS "history_agrees?",
                  existing.current AS "current?",
                  existing.content AS "content?",
                  -- The event's order as rows of the same tables, compared with all their columns. What the event says beyond
                  -- the columns stays in the document and makes it differ.
                  CASE WHEN version = existing.current AND event_type <> 'OrderDeleted' THEN
                      existing.document = (body #> '{data,order}')
                          || to_jsonb(jsonb_populate_record(NULL::orders,
                                 -- Events of version 0.1.0 say nothing about references and metadata.
                                 jsonb_build_object('reference', existing.document -> 'reference')
                                 || jsonb_set(
                                     body #> '{data,order}', '{order_date}',
                                     -- Unlike a cast, this reads the year 0, which versions before this one took.
                                     to_jsonb(to_date(body #>> '{data,order,order_date}', 'YYYY-MM-DD')))
                                 || jsonb_build_object('tenant_id', said_tenant)))
                          -- Text in the column, and so that equal objects are equal an object here.
                          || jsonb_build_object('metadata',
                                 coalesce(body #> '{data,order,metadata}', existing.document -> 'metadata'))
                          || jsonb_build_object('lines', (
                                 SELECT jsonb_agg(line || to_jsonb(jsonb_populate_record(NULL::order_lines,
                                            line || jsonb_build_object(
                                                'order_id', order_id, 'position', place - 1, 'tenant_id', said_tenant)))
                                        ORDER BY place)
                                 FROM jsonb_array_elements(body #> '{data,order,lines}') WITH ORDINALITY AS lines (line, place)))
                  END AS "order_agrees?"
           FROM (
               -- Parsed once, for which `OFFSET 0` keeps the planner from merging this into the comparisons.
               (SELECT id, order_id, version, event_id, event_type, tenant_id, body,
                       -- An event names its tenant unless that is the default one.
                       coalesce((body ->> 'tenantid')::integer, 1) AS said_tenant
                FROM (SELECT id, order_id, version, event_id, event_type, tenant_id, payload::jsonb AS body
                      FROM outbox OFFSET 0) AS parsed
                OFFSET 0) AS logged
               FULL JOIN order_history AS recorded USING (order_id, version)
           )
           FULL JOIN (
               SELECT order_id, tenant_id, current, document, md5(document::text) AS content
               FROM (
                   SELECT orders.id AS order_id, orders.tenant_id, orders.version AS current,
                          to_jsonb(orders) || jsonb_build_object('metadata', metadata::jsonb, 'lines', (
                              SELECT jsonb_agg(to_jsonb(line) ORDER BY position)
                              FROM order_lines AS line WHERE line.order_id = orders.id)) AS document
                   FROM orders
               ) AS documents
           ) AS existing USING (order_id)
           WHERE ($1::bigint[] IS NULL OR order_id = ANY($1))
             AND coalesce(logged.tenant_id, recorded.tenant_id, existing.tenant_id) <> ALL($2)
           ORDER BY order_id, version, logged.id"#,
        only,
        removing
    )
    .fetch(connection)
}
