//! Every query that names a table of tenants names the tenant as well, or stands here with a reason.

use std::{fs, path::Path};

use api::db::{ListPosition, ORDERS_BY_KEY, OrderFilter, PageStart, count_query, page_query};
use serde_json::Value;
use testbed::paths::workspace;
use time::macros::datetime;

use crate::orders_plans::filters;

/// The tables whose rows belong to tenants. Not `idempotency_keys`, whose keys name the tenant: see
/// `IdempotencyClaim::stored_key`.
const TABLES: [&str; 8] = [
    "orders",
    "order_lines",
    "order_history",
    "outbox",
    "dead_letters",
    "cache_debts",
    "accounts",
    "ended_sessions",
];

/// Queries over all tenants, by words that only they have, and why they may be.
const OF_ALL_TENANTS: &[(&str, &str)] = &[
    ("'Trial', 0, 0,", "a trial of the health check, which is taken back"),
    (
        "SELECT reconciled, coalesce((SELECT max(id) FROM outbox), 0)",
        "the reconciler goes through the whole log",
    ),
    ("EXISTS (SELECT FROM outbox o WHERE o.day = $1", "a partition is a day of the whole log"),
    (
        "coalesce(log_position(id), 0) AS \"position!\"",
        "the reconciler publishes by the ids that it has found",
    ),
    ("SELECT count(*) AS \"count!\" FROM orders", "`worker rebuild-cache` goes through all orders"),
    ("SELECT id, tenant_id FROM orders WHERE id > $1", "`worker rebuild-cache` goes through all orders"),
    (
        "tenant_id FROM cache_debts ORDER BY owed_since",
        "debts are paid one after the other, each with its tenant",
    ),
    (
        "payload FROM outbox JOIN unnest($1::bigint[], $2::bigint[]) AS wanted",
        "`worker verify` repairs all tenants",
    ),
    (
        "FROM order_history JOIN unnest($1::bigint[], $2::bigint[]) AS wanted",
        "`worker verify` repairs all tenants",
    ),
    (
        "DELETE FROM order_history WHERE order_id = $1 AND version = $2",
        "a repair of what may name a wrong tenant",
    ),
    ("existing.content AS \"content?\"", "`worker verify` compares all tenants"),
    (
        "FROM order_history WHERE order_id > $2 ORDER BY order_id LIMIT $3",
        "a removal reads the whole history by its key, and removes a tenant's",
    ),
    (
        "DELETE FROM orders WHERE id = ANY (ARRAY( SELECT id FROM orders WHERE tenant_id = $1",
        "the tenant stands inside",
    ),
    (
        "FROM order_history WHERE order_id = first.order_id) AS placed",
        "of an order whose first version is the tenant's",
    ),
    ("UPDATE dead_letters SET redriven_at", "letters that a filtered query has read"),
    ("DELETE FROM cache_debts WHERE order_id = ANY($1)", "debts that the same transaction has locked"),
];

/// The files whose queries are not in `.sqlx`. Those of the first two are looked at below, one by one; the others change settings,
/// take locks, and build indexes.
const PUT_TOGETHER: [&str; 6] = [
    "api/src/db/list.rs",
    "api/src/db/read.rs",
    "api/src/migrate.rs",
    "api/src/outbox/partitions.rs",
    "shared/src/platform/db/pool.rs",
    "shared/src/platform/db/retry.rs",
];

/// A query on one line, without comments.
fn on_one_line(sql: &str) -> String {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// Where tables of tenants are named.
fn mentions(sql: &str) -> Vec<usize> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for table in TABLES {
        for (at, _) in sql.match_indices(table) {
            let before = sql[..at].chars().next_back().unwrap_or(' ');
            let after = sql[at + table.len()..].chars().next().unwrap_or(' ');
            // Neither a part of another name, nor a type, a literal or an alias, nor the table of a column.
            if !is_part(before)
                && !matches!(before, '.' | ':' | '\'' | '"')
                && !is_part(after)
                && after != '.'
            {
                found.push(at);
            }
        }
    }
    found.sort_unstable();
    found
}

/// Whether a part of a query compares the tenant, or has it in a list of columns.
fn names_tenant(part: &str) -> bool {
    ["tenant_id = ", "tenant_id,", "tenant_id)"].iter().any(|words| part.contains(words))
}

/// What names a table of tenants, and no tenant before it names the next one. Tables that are joined count as one.
fn without_tenant(sql: &str) -> Option<String> {
    let mut places = mentions(sql);
    places.dedup_by(|next, place| sql[*place..*next].ends_with(" JOIN "));
    places.push(sql.len());
    let parts = places.windows(2).map(|pair| &sql[pair[0]..pair[1]]);
    parts.filter(|part| !names_tenant(part)).map(str::to_owned).next()
}

#[test]
fn each_table_of_tenants_in_a_query_comes_with_the_tenant() {
    let mut used = vec![false; OF_ALL_TENANTS.len()];
    let mut seen = 0;
    for file in fs::read_dir(workspace().join(".sqlx")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let entry: Value = serde_json::from_str(&text).unwrap();
        let sql = on_one_line(entry["query"].as_str().unwrap());
        seen += usize::from(!mentions(&sql).is_empty());
        let Some(part) = without_tenant(&sql) else { continue };
        match OF_ALL_TENANTS.iter().position(|(words, _)| sql.contains(words)) {
            Some(place) => used[place] = true,
            None => panic!("{part:?} names no tenant, in:\n{sql}"),
        }
    }
    assert!(seen > 20, "the queries are read: {seen}");
    for ((words, _), used) in OF_ALL_TENANTS.iter().zip(used) {
        assert!(used, "no query over all tenants has these words any more: {words}");
    }
}

#[test]
fn each_table_of_tenants_in_a_file_of_sql_comes_with_the_tenant() {
    for file in ["api/src/db/create.sql", "api/src/db/change.sql"] {
        let sql = on_one_line(&fs::read_to_string(workspace().join(file)).unwrap());
        assert!(!mentions(&sql).is_empty());
        assert_eq!(without_tenant(&sql), None, "{file}");
    }
}

#[test]
fn each_query_that_is_put_together_comes_with_the_tenant() {
    let position = ListPosition { created_at: datetime!(2025-01-20 10:00 UTC), id: 1.try_into().unwrap() };
    assert_eq!(without_tenant(ORDERS_BY_KEY), None);
    for filter in filters() {
        let starts = [PageStart::Offset(0), PageStart::Offset(10), PageStart::After(position)];
        let pages = starts.map(|start| page_query(&filter, start, 10));
        for query in pages.into_iter().chain([count_query(&filter)]) {
            let sql = on_one_line(query.sql().as_str());
            assert!(!mentions(&sql).is_empty());
            assert_eq!(without_tenant(&sql), None, "{sql}");
        }
    }
    let all = OrderFilter::all_of(2.try_into().unwrap());
    assert!(page_query(&all, PageStart::Offset(0), 10).sql().as_str().contains("o.tenant_id = $1"));
}

#[test]
fn no_other_file_has_a_query_that_is_put_together() {
    let mut found = Vec::new();
    for folder in ["api/src", "worker/src", "shared/src"] {
        find_put_together(&workspace().join(folder), &mut found);
    }
    found.sort();
    assert_eq!(found, PUT_TOGETHER);
}

fn find_put_together(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_put_together(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Tests in the file can do what they like.
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            let calls =
                ["QueryBuilder::new(", "sqlx::query(", "query_as(", "query_scalar(", "AssertSqlSafe("];
            if calls.iter().any(|call| program.contains(call)) {
                let name = path.strip_prefix(workspace()).unwrap();
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }
}

#[test]
fn the_net_sees_each_way_to_name_a_table() {
    for sql in [
        "SELECT * FROM orders WHERE id = $1",
        "SELECT * FROM outbox, orders o WHERE o.tenant_id = 1",
        "DELETE FROM order_lines l USING allowed a WHERE l.order_id = a.id",
        "UPDATE accounts SET role = 'admin'",
        "UPDATE accounts SET role = 'admin' WHERE tenant_id > 0 AND email = $1",
        "SELECT * FROM orders WHERE tenant_id = $1 AND EXISTS (SELECT FROM order_lines WHERE order_id = id)",
    ] {
        assert!(without_tenant(sql).is_some(), "{sql}");
    }
    for sql in [
        "SELECT * FROM orders WHERE tenant_id = $1 AND orders.id = $2",
        "SELECT * FROM accounts LEFT JOIN ended_sessions USING (tenant_id, customer_id) WHERE email = $2",
        "SELECT NULL::orders, 'outbox', orders_id_seq FROM other",
    ] {
        assert_eq!(without_tenant(sql), None, "{sql}");
    }
}
