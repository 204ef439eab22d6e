//! What is written names the tenant, and no statement takes an order for another tenant's.

use api::db::{self, ChangeOutcome, ChangedOrder};
use reqwest::StatusCode;
use serde_json::json;
use shared::domain::{
    event::{Event, Happened},
    order::{Order, OrderKey},
    tenant::TenantId,
};

use crate::{
    orders_support::{order, path},
    tenants_isolation::TwoShops,
};

#[tokio::test]
async fn rows_lines_and_events_carry_the_tenant_and_an_event_names_it() {
    let shops = TwoShops::open().await;
    let id = shops.there[0].place(&order()).await;
    let body = json!({"lines": [{"product_id": 5, "quantity": 1, "unit_price": 2}]});
    shops.there[1].put(&path(id), &body).await.expect(StatusCode::OK);
    let own = shops.here[0].place(&order()).await;
    let of = async |sql: &'static str, id: i64| -> Vec<i64> {
        sqlx::query_scalar(sql).bind(id).fetch_all(&shops.app.db).await.unwrap()
    };
    for (id, tenant) in [(id, shops.tenant), (own, 1)] {
        assert_eq!(of("SELECT tenant_id::bigint FROM orders WHERE id = $1", id).await, [tenant]);
        let lines = of("SELECT DISTINCT tenant_id::bigint FROM order_lines WHERE order_id = $1", id).await;
        assert_eq!(lines, [tenant]);
        let events = of("SELECT DISTINCT tenant_id::bigint FROM outbox WHERE order_id = $1", id).await;
        assert_eq!(events, [tenant]);
    }
    let named: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT payload::json ->> 'tenantid' FROM outbox WHERE order_id = ANY($1) ORDER BY order_id, version",
    )
    .bind(vec![id, own])
    .fetch_all(&shops.app.db)
    .await
    .unwrap();
    let tenant = Some(shops.tenant.to_string());
    assert_eq!(named, [tenant.clone(), tenant, None]);
    let shown = shops.there[0].get(&path(id)).await.expect(StatusCode::OK);
    assert_eq!(shown.json.get("tenant_id"), None);
}

/// Below the rules, which read an order by its tenant first: no statement takes an order for another tenant's.
#[tokio::test]
async fn statements_find_no_order_of_another_tenant() {
    let shops = TwoShops::open().await;
    let id = shops.there[0].place(&order()).await;
    let there = shops.key(id);
    let here = OrderKey { tenant: TenantId::DEFAULT, ..there };
    let mut db = shops.app.db.acquire().await.unwrap();
    let found = db::load_orders(&mut db, &[there, here]).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&there]);
    assert!(db::lock_order(&mut db, there).await.unwrap());
    assert!(!db::lock_order(&mut db, here).await.unwrap());

    let before = Order { tenant_id: TenantId::DEFAULT, ..found[&there].clone() };
    let after = Order { version: 2, ..before.clone() };
    let happened = Happened { time: before.created_at, performed_by: before.owner(), traceparent: None };
    for (after, event) in [
        (Some(&after), Event::updated(&before, after.clone(), happened.clone())),
        (None, Event::deleted(before.clone(), happened.clone())),
    ] {
        let event = event.to_envelope();
        let change = ChangedOrder { before: &before, after, event: &event, claim: None };
        let outcomes = db::change_orders(&mut db, &[change]).await.unwrap();
        assert_eq!(outcomes[&before.id], ChangeOutcome::Raced);
    }
    shops.there[1].delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    let deletions = db::load_deletions(&mut db, &[here, there]).await.unwrap();
    assert_eq!(
        deletions.iter().map(|deletion| (deletion.order, deletion.version)).collect::<Vec<_>>(),
        [(there, 2)]
    );
    assert_eq!(shops.app.events(id).await, ["OrderCreated 1", "OrderDeleted 2"]);
}

/// Below the rules, which pass over them: what a reader of one tenant gets of another's events is their position.
#[tokio::test]
async fn the_log_hands_out_nothing_but_the_position_of_another_tenants_event() {
    type Row = (Option<i32>, Option<String>, Option<i64>, Option<String>);
    let shops = TwoShops::open().await;
    let theirs = shops.there[0].place(&order()).await;
    let own = shops.here[0].place(&order()).await;
    shops.app.sequenced().await;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT f.tenant_id, f.event_type, f.order_id, f.payload FROM log_feed(0, 1000, 1) f
         JOIN outbox o ON log_position(o.id) = f.position WHERE o.order_id = ANY($1) ORDER BY o.order_id = $2",
    )
    .bind(vec![theirs, own])
    .bind(own)
    .fetch_all(&shops.app.db)
    .await
    .unwrap();
    let [other, mine] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&other.1, other.2, &other.3), (&None, None, &None));
    assert_eq!((mine.0, mine.1.as_deref(), mine.2), (Some(1), Some("OrderCreated"), Some(own)));
    assert!(mine.3.is_some());
}
