//! Reading through the cache: exact after every write, and no single point.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::{Proxy, eventually};
use uuid::Uuid;

use crate::{
    orders_support::{order, path, without_database},
    support::{Session, TestApp},
};

/// An API whose Redis can fail.
pub(crate) async fn with_redis_behind_a_proxy() -> (TestApp, Proxy) {
    let redis = testbed::redis().await;
    let (address, database) = redis.url().strip_prefix("redis://").unwrap().split_once('/').unwrap();
    let proxy = Proxy::start(address).await;
    let url = format!("redis://{}/{database}", proxy.addr());
    let options = TestApp::with().set("REDIS_URL", url);
    (TestApp::start_with(options, testbed::postgres().await, redis).await, proxy)
}

/// An API whose PostgreSQL can fail.
pub(crate) async fn with_postgresql_behind_a_proxy() -> (TestApp, Proxy) {
    let database = testbed::postgres().await;
    let (server, name) = database.url().rsplit_once('/').unwrap();
    let (user, address) = server.rsplit_once('@').unwrap();
    let proxy = Proxy::start(address).await;
    let url = format!("{user}@{}/{name}", proxy.addr());
    let options = TestApp::with().set("DATABASE_URL", url);
    let app = TestApp::start_with(options, database, testbed::redis().await).await;
    (app, proxy)
}

async fn status_of(session: &Session, id: i64) -> Value {
    session.get(&path(id)).await.expect(StatusCode::OK).json["status"].clone()
}

#[tokio::test]
async fn a_read_after_a_write_on_any_replica_shows_it() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut writer, mut reader) = (here.clone(), there.clone());
        tasks.spawn(async move {
            let id = writer.place(&order()).await;
            for version in 2..=20 {
                let day = format!("2024-01-{version:02}");
                let changed = writer.put(&path(id), &json!({"order_date": day})).await.expect(StatusCode::OK);
                assert_eq!(changed.json["version"], version);
                assert_eq!(reader.get(&path(id)).await.bytes, changed.bytes);
                std::mem::swap(&mut writer, &mut reader);
            }
            writer.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
            reader.get(&path(id)).await.expect(StatusCode::NOT_FOUND);
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_hit_needs_no_postgresql_and_a_miss_fills_the_cache() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let read = app.read_into_cache(&session, id).await;
    app.close_database().await;
    let hit = without_database(async || session.get(&path(id)).await).await;
    assert_eq!(hit.expect(StatusCode::OK).bytes, read.bytes);
}

#[tokio::test]
async fn with_redis_frozen_or_refusing_reads_and_writes_go_on() {
    let (app, proxy) = with_redis_behind_a_proxy().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let placed = app.read_into_cache(&session, id).await;
    assert_eq!(placed.json["status"], "PENDING");

    proxy.freeze();
    session.put(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    assert_eq!(status_of(&session, id).await, "CONFIRMED");
    assert!(app.app.state.orders.cache_degraded());
    let other = session.place(&order()).await;
    assert_eq!(status_of(&session, other).await, "PENDING");
    // Without a breaker, each of these reads would wait 50 ms for Redis.
    let (start, reads) = (Instant::now(), 400);
    for _ in 0..reads {
        assert_eq!(status_of(&session, other).await, "PENDING");
    }
    assert!(start.elapsed() < reads * Duration::from_millis(50), "{:?}", start.elapsed());

    proxy.refuse().await;
    proxy.cut();
    session.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    assert_eq!(status_of(&session, id).await, "SHIPPED");

    proxy.thaw();
    proxy.accept().await;
    eventually("the stale entries are corrected", async || !app.app.state.orders.cache_degraded()).await;
    app.close_database().await;
    let hit = without_database(async || session.get(&path(id)).await).await.expect(StatusCode::OK);
    assert_eq!(hit.json["status"], "SHIPPED", "from the cache, which is right again");
    app.drain().await;
}

#[tokio::test]
async fn a_stale_entry_is_not_served_by_its_replica_and_is_corrected_when_redis_is_back() {
    let (app, proxy) = with_redis_behind_a_proxy().await;
    let session = app.login(1).await;
    let (changed, deleted) = (session.place(&order()).await, session.place(&order()).await);
    let before = app.read_into_cache(&session, changed).await;
    app.read_into_cache(&session, deleted).await;
    proxy.freeze();
    session.put(&path(changed), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    session.delete(&path(deleted)).await.expect(StatusCode::NO_CONTENT);
    // The cache still holds what was before.
    let mut redis = app.redis_connection().await;
    let entry: String =
        redis::cmd("GET").arg(format!("cache:order:{changed}")).query_async(&mut redis).await.unwrap();
    assert!(entry.as_bytes().ends_with(&before.bytes));
    for _ in 0..10 {
        assert_eq!(status_of(&session, changed).await, "SHIPPED");
        session.get(&path(deleted)).await.expect(StatusCode::NOT_FOUND);
    }
    proxy.thaw();
    eventually("the entries are corrected", async || !app.app.state.orders.cache_degraded()).await;
    let entry: String =
        redis::cmd("GET").arg(format!("cache:order:{changed}")).query_async(&mut redis).await.unwrap();
    assert!(entry.starts_with("00000000000000000002") && entry.contains("SHIPPED"), "{entry}");
    let entry: String =
        redis::cmd("GET").arg(format!("cache:order:{deleted}")).query_async(&mut redis).await.unwrap();
    assert_eq!(entry, format!("{:020}{:020}", 2, 0), "a tombstone");
    app.drain().await;
}

/// What one replica commits without reaching the cache, and what another one answers then.
struct Unseen {
    committed: (Method, Option<Value>),
    asked: (Method, Option<Value>),
    headers: &'static [(&'static str, &'static str)],
    answered: StatusCode,
    read: StatusCode,
}

impl Unseen {
    fn new(committed: Option<Value>, asked: Option<Value>, answered: StatusCode) -> Self {
        let method = |body: &Option<Value>| if body.is_some() { Method::PUT } else { Method::DELETE };
        let read = if committed.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        Self {
            committed: (method(&committed), committed),
            asked: (method(&asked), asked),
            headers: &[],
            answered,
            read,
        }
    }

    /// Both with these headers.
    fn with(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }
}

#[tokio::test]
async fn every_response_to_a_write_leaves_the_cache_as_new_as_what_it_shows() {
    // This replica loses Redis: as one that dies, or freezes, between its commit and its cache write.
    let (app, proxy) = with_redis_behind_a_proxy().await;
    let redis_url = secrecy::SecretString::from(app.redis.url());
    let replica = app.replica_with(|config| config.redis_url = redis_url).await;
    let here = app.login(1).await;
    let there = replica.session(&here);
    let shipped = || Some(json!({"status": "SHIPPED"}));
    let dated = || Some(json!({"order_date": "2024-12-31"}));
    let (ok, no_content) = (StatusCode::OK, StatusCode::NO_CONTENT);
    let (not_found, conflict) = (StatusCode::NOT_FOUND, StatusCode::CONFLICT);
    let cases = [
        ("a replayed change", Unseen::new(dated(), dated(), ok).with(&[("idempotency-key", "changed")])),
        ("a replayed deletion", Unseen::new(None, None, no_content).with(&[("idempotency-key", "deleted")])),
        ("a change that changes nothing", Unseen::new(shipped(), shipped(), ok)),
        ("an illegal move", Unseen::new(shipped(), Some(json!({"status": "PENDING"})), conflict)),
        ("what cannot be edited", Unseen::new(shipped(), dated(), conflict)),
        (
            "a stale precondition",
            Unseen::new(shipped(), None, StatusCode::PRECONDITION_FAILED).with(&[("if-match", "\"1\"")]),
        ),
        ("a change of what is deleted", Unseen::new(None, shipped(), not_found)),
        ("a deletion of what is deleted", Unseen::new(None, None, not_found)),
    ];
    // Each case without a key of its own and with one, on an order of its own.
    let cases = cases.iter().flat_map(|(name, case)| [(name, case, false), (name, case, true)]);
    let mut cached = Vec::new();
    for (name, case, keyed) in cases {
        // The same key cannot be given twice.
        if !keyed || case.headers.iter().all(|(header, _)| *header != "idempotency-key") {
            let id = here.place(&order()).await;
            app.read_into_cache(&here, id).await;
            cached.push((name, case, keyed, id));
        }
    }
    // What it will use of Redis, for which it has 50 ms a call: a connection, and a healthy state.
    let warm = here.place(&order()).await;
    eventually("the other replica uses its cache", async || {
        there.patch(&path(warm), &json!({"metadata": {"try": Uuid::now_v7()}})).await.expect(ok);
        !replica.app.state.orders.cache_degraded()
    })
    .await;
    proxy.freeze();
    let mut redis = app.redis_connection().await;
    for (name, case, keyed, id) in cached {
        let path = path(id);
        let (method, body) = &case.committed;
        let committed = here.send(method.clone(), &path, case.headers, body.as_ref()).await;
        assert!(committed.status.is_success(), "{name}: {}", committed.status);

        let key = format!("asked-{id}");
        let key = if keyed { vec![("idempotency-key", key.as_str())] } else { Vec::new() };
        let (method, body) = &case.asked;
        let headers = [case.headers, &key].concat();
        let asked = there.send(method.clone(), &path, &headers, body.as_ref()).await;
        assert_eq!(asked.status, case.answered, "{name}: {}", asked.json);
        let read = there.get(&path).await;
        assert_eq!(read.status, case.read, "{name}: {}", read.json);
        if read.status == ok {
            assert_eq!(read.json["version"], 2, "{name}: {}", read.json);
        }
        let entry: String =
            redis::cmd("GET").arg(format!("cache:order:{id}")).query_async(&mut redis).await.unwrap();
        assert!(entry.starts_with("00000000000000000002"), "{name}: no reader can be behind: {entry}");
        assert_eq!(entry.len() == 40, case.read == not_found, "{name}: a tombstone if it is gone: {entry}");
    }
    drop(replica);
    app.drain().await;
}

#[tokio::test]
async fn a_write_that_names_no_order_leaves_nothing_in_the_cache() {
    let app = TestApp::start().await;
    let (owner, other) = (app.login(1).await, app.login(2).await);
    let id = owner.place(&order()).await;
    other.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::NOT_FOUND);
    for id in [id + 1, i64::MAX] {
        owner.put(&path(id), &json!({"status": "SHIPPED"})).await.expect(StatusCode::NOT_FOUND);
        let mut redis = app.redis_connection().await;
        let held: bool =
            redis::cmd("EXISTS").arg(format!("cache:order:{id}")).query_async(&mut redis).await.unwrap();
        assert!(!held, "{id} may be placed later");
    }
    owner.get(&path(id)).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn with_postgresql_gone_cached_orders_are_shown_and_writes_are_503() {
    let (app, proxy) = with_postgresql_behind_a_proxy().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    app.read_into_cache(&session, id).await;
    let answers = async |session: &Session| {
        let (read, written) = tokio::join!(async { session.get(&path(id)).await.status }, async {
            session.post("/api/v1/orders", &order()).await.status
        });
        (read, written)
    };
    proxy.refuse().await;
    proxy.cut();
    // The ids at hand may let the first request come as far as a broken connection, whose outcome is unknown.
    eventually("writes are refused", async || {
        answers(&session).await == (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    let refused = session.put(&path(id), &json!({"status": "SHIPPED"})).await;
    let refused = refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(refused.header("retry-after").is_some());
    proxy.accept().await;
    eventually("writes are taken again", async || {
        answers(&session).await == (StatusCode::OK, StatusCode::CREATED)
    })
    .await;
    assert_eq!(
        app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await,
        app.count("SELECT count(*) FROM outbox").await
    );
    app.drain().await;
}

#[tokio::test]
async fn connections_that_are_cut_lose_and_duplicate_nothing() {
    let (app, proxy) = with_postgresql_behind_a_proxy().await;
    let session = app.login(1).await;
    let mut tasks = tokio::task::JoinSet::new();
    let (placing, mut counted) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..8 {
        let (session, placing) = (session.clone(), placing.clone());
        tasks.spawn(async move {
            let mut placed = Vec::new();
            for _ in 0..40 {
                let answer = session.post("/api/v1/orders", &order()).await;
                if answer.status == StatusCode::CREATED {
                    let id = answer.json["id"].as_i64().unwrap();
                    placing.send(()).unwrap();
                    let shipped = session.put(&path(id), &json!({"status": "SHIPPED"})).await;
                    placed.push((id, if shipped.status == StatusCode::OK { 2 } else { 1 }));
                }
            }
            placed
        });
    }
    drop(placing);
    let mut count = 0;
    while counted.recv().await.is_some() {
        count += 1;
        if count % 20 == 0 {
            proxy.cut();
        }
    }
    let placed: Vec<(i64, i64)> = tasks.join_all().await.concat();
    assert!(placed.len() > 200, "most are placed all the same: {}", placed.len());
    for (id, version) in placed {
        let stored: i64 = sqlx::query_scalar("SELECT version FROM orders WHERE id = $1")
            .bind(id)
            .fetch_one(&app.db)
            .await
            .unwrap();
        assert!(stored >= version, "order {id} was answered at {version} and is stored at {stored}");
        assert_eq!(i64::try_from(app.events(id).await.len()).unwrap(), stored, "one event a version");
    }
    assert_eq!(
        app.count("SELECT count(*) FROM outbox").await,
        app.count("SELECT sum(version)::bigint FROM orders WHERE tenant_id = 1").await,
        "no order without its events, and no event without its order"
    );
    app.drain().await;
}
