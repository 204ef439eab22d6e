//! The relay's lease and cursor after a standby was promoted. Transaction ids go on there, but those that the standby had not
//! received are given out again.

use std::{sync::Arc, time::Duration};

use api::outbox::{Relay, RelaySettings, RelayStep};
use secrecy::SecretString;
use shared::broker::EventSink;
use sqlx::{Connection as _, PgConnection};
use testbed::{PrivatePostgres, eventually};

use crate::{
    outbox_support::{Broker, append, publish_all},
    postgres_support::follows,
};

/// Connections that rest for longer are tested before they are used, so that a relay may notice nothing of a promotion.
const REST: Duration = Duration::from_millis(1100);

/// What the server knows of positions.
const STATE: &str = "SELECT concat_ws('; ', r, pg_current_snapshot(), log_timeline(),
                                      (SELECT string_agg(concat_ws(' ', o.id, o.xid, o.order_id), ', ') FROM outbox o),
                                      (SELECT string_agg(p::text, ', ') FROM log_pages p)) FROM relay r";

/// A primary, its standby, and a relay that knows both.
struct Promotion {
    primary: PrivatePostgres,
    standby: PrivatePostgres,
    broker: Arc<Broker>,
    relay: Relay,
}

impl Promotion {
    async fn prepare() -> Self {
        let primary = testbed::private_postgres().await;
        let standby = primary.standby().await;
        let broker = Broker::new();
        let (user, _) = primary.url().split_once('@').expect("a user");
        let url = format!("{user}@{},{}/orders", primary.address(), standby.address());
        let pool = shared::platform::db::pool(&SecretString::from(url), 4, "relay").expect("a URL");
        let settings = RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() };
        let relay = Relay::new(pool, Arc::clone(&broker) as Arc<dyn EventSink>, settings);
        Self { primary, standby, broker, relay }
    }

    /// The same after one event was published and reached the standby, which has then missed transaction ids.
    async fn prepare_standby_behind() -> Self {
        let it = Self::prepare().await;
        append(&mut connect(&it.primary).await, 1, 1).await;
        assert_eq!(publish_all(&it.relay).await, 1);
        eventually("the standby has it all", async || follows(&it.primary, &it.standby).await).await;
        it.use_up_transaction_ids().await;
        it
    }

    /// From now on the standby receives nothing, and the primary gives out transaction ids.
    async fn use_up_transaction_ids(&self) {
        self.standby.stop_receiving().await;
        let mut primary = connect(&self.primary).await;
        for _ in 0..100 {
            sqlx::query("SELECT pg_current_xact_id()").execute(&mut primary).await.expect("an id");
        }
    }

    /// The primary is lost, and the connections to it rest. Returns a connection to the new one.
    async fn promote(&self) -> PgConnection {
        self.primary.kill();
        self.standby.promote().await;
        tokio::time::sleep(REST).await;
        connect(&self.standby).await
    }
}

async fn connect(server: &PrivatePostgres) -> PgConnection {
    PgConnection::connect(server.url()).await.expect("PostgreSQL answers")
}

async fn read(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(connection).await.expect(sql)
}

#[tokio::test]
async fn lease_and_cursor_survive_a_promotion_and_nothing_is_published_twice() {
    let it = Promotion::prepare().await;
    let mut primary = connect(&it.primary).await;
    let lease = "SELECT concat_ws(' ', owner, epoch, system_identifier) FROM relay";
    for order in 1..=5 {
        append(&mut primary, order, 1).await;
    }
    assert_eq!(publish_all(&it.relay).await, 5);
    let before = read(&mut primary, lease).await;
    // Open when the primary is lost, and gone with it.
    let mut open = connect(&it.primary).await;
    let mut open = open.begin().await.expect("a transaction");
    append(&mut open, 6, 1).await;
    append(&mut primary, 7, 1).await;
    eventually("the standby has it all", async || follows(&it.primary, &it.standby).await).await;

    let mut promoted = it.promote().await;
    append(&mut promoted, 8, 1).await;
    let published = publish_all(&it.relay).await;
    assert_eq!(published, 2, "{}", read(&mut promoted, STATE).await);
    let events: Vec<i64> = it.broker.take().into_iter().map(|(order, _)| order).collect();
    assert_eq!(events, [1, 2, 3, 4, 5, 7, 8]);
    assert_eq!(read(&mut promoted, lease).await, before, "the same holder, epoch and cluster");
}

#[tokio::test]
async fn events_under_transaction_ids_that_are_given_out_again_are_published_at_once() {
    let it = Promotion::prepare_standby_behind().await;
    assert_eq!(it.relay.relay_once().await.expect("a step"), RelayStep::Idle);

    let mut promoted = it.promote().await;
    for order in 2..=11 {
        append(&mut promoted, order, 1).await;
    }
    assert_eq!(publish_all(&it.relay).await, 10);
}

#[tokio::test]
async fn a_batch_that_a_promotion_interrupts_leaves_no_cursor_of_the_lost_primary_behind() {
    let it = Promotion::prepare_standby_behind().await;
    append(&mut connect(&it.primary).await, 2, 1).await;
    it.broker.block();
    let interrupted = async {
        it.broker.is_asked().await;
        let promoted = it.promote().await;
        it.broker.unblock();
        promoted
    };
    let (_step, mut promoted) = tokio::join!(it.relay.relay_once(), interrupted);
    let is_past =
        "SELECT (pg_snapshot_xmax(published) <= pg_snapshot_xmax(pg_current_snapshot()))::text FROM relay";
    assert_eq!(read(&mut promoted, is_past).await, "true", "the cursor is not ahead of the new primary");
    append(&mut promoted, 3, 1).await;
    assert_eq!(publish_all(&it.relay).await, 1);
}
