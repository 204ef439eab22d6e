//! Health and readiness on databases that answer and cannot be worked with.

use reqwest::StatusCode;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testbed::eventually;
use uuid::Uuid;

use crate::{
    orders_support::order,
    support::{Answer, TestApp},
};

const HEALTH: &str = "/api/v1/health";
const READY: &str = "/api/v1/health/ready";

async fn until_database(app: &TestApp, status: &str, detail: &str) -> Answer {
    eventually(&format!("the database is {status} with {detail:?}"), async || {
        let report = app.get(HEALTH).await;
        let database = &report.json["services"]["database"];
        let said = database["detail"].as_str().unwrap_or_default();
        if database["status"] == status && said.contains(detail) { Ok(report) } else { Err(report.json) }
    })
    .await
}

async fn until_not_ready(app: &TestApp, detail: &str) {
    eventually(&format!("the API is not ready: {detail}"), async || {
        let answer = app.get(READY).await;
        let said = answer.json["detail"].as_str().unwrap_or_default();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE && said.contains(detail) {
            Ok(())
        } else {
            Err(answer.json)
        }
    })
    .await;
}

async fn until_ready(app: &TestApp) {
    eventually("the API is ready", async || app.get(READY).await.status == StatusCode::OK).await;
}

async fn run(app: &TestApp, sql: impl Into<String>) {
    let sql = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(&app.db)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn on_a_database_that_was_never_migrated_the_api_is_not_ready_and_says_what_to_do() {
    let database = testbed::empty_postgres().await;
    let url = database.url().to_owned();
    let app = TestApp::start_with(TestApp::with(), database, testbed::redis().await).await;
    until_not_ready(&app, "run `api migrate`").await;
    let report = until_database(&app, "unhealthy", "never migrated").await;
    assert_eq!(
        (report.status, &report.json["status"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"unhealthy".into())
    );
    testbed::migrate(&url).await.expect("the database is migrated");
    until_ready(&app).await;
}

#[tokio::test]
async fn on_an_older_schema_the_api_is_not_ready_and_on_a_newer_one_it_is() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    let last: i64 = sqlx::query_scalar(
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations) RETURNING version",
    )
    .fetch_one(&db)
    .await
    .expect("a migration");
    let app = TestApp::start_with(TestApp::with(), database, testbed::redis().await).await;
    until_not_ready(&app, &format!("lacks 1 of this build's migrations, the first is {last:04}")).await;
    for version in [last, 9999] {
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES ($1, 'told so', true, '', 0)",
        )
        .bind(version)
        .execute(&db)
        .await
        .expect("the migration is noted");
    }
    until_ready(&app).await;
}

#[tokio::test]
async fn with_a_role_that_lacks_rights_the_api_is_not_ready_and_names_them() {
    let role = format!("role_{}", Uuid::now_v7().simple());
    let database = testbed::postgres().await;
    let db = database.connect().await;
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(grants)).execute(&db).await.expect("a role");
    let (_, server) = database.url().split_once('@').expect("a URL with a user");
    let url = format!("postgres://{role}:secret@{server}");
    let app =
        TestApp::start_with(TestApp::with().set("DATABASE_URL", url), database, testbed::redis().await).await;
    until_not_ready(&app, "DELETE, INSERT, UPDATE on orders; INSERT on outbox; UPDATE on relay").await;
    run(&app, format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")).await;
    until_ready(&app).await;
    // Taken away while it runs: a write shows it.
    let session = app.login(7).await;
    session.place(&order()).await;
    run(&app, format!("REVOKE INSERT ON orders FROM {role}")).await;
    assert!(session.post("/api/v1/orders", &order()).await.status.is_server_error());
    until_not_ready(&app, "INSERT on orders").await;
    run(&app, format!("GRANT INSERT ON orders TO {role}")).await;
    until_ready(&app).await;
    let db = app.db.clone();
    app.drain().await;
    let drop_role = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    // The roles of all tests belong to one server.
    drop(sqlx::raw_sql(AssertSqlSafe(drop_role)).execute(&db).await);
}

#[tokio::test]
async fn every_table_is_in_the_rights_that_readiness_checks() {
    let database = testbed::postgres().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND relname <> '_sqlx_migrations' ORDER BY relname",
    )
    .fetch_all(&database.connect().await)
    .await
    .expect("the tables");
    // The worker alone uses these: `worker/src/rights.rs` must name them.
    let others = ["cache_debts"];
    let known = |table: &str| {
        api::http::health::RIGHTS.iter().any(|(name, _)| *name == table) || others.contains(&table)
    };
    let unknown: Vec<_> = tables.iter().filter(|table| !known(table)).collect();
    assert!(unknown.is_empty(), "add these tables to RIGHTS of the API or the worker: {unknown:?}");
}

#[tokio::test]
async fn writes_that_postgresql_refuses_make_the_api_degraded_until_one_succeeds() {
    let app = TestApp::start().await;
    let session = app.login(7).await;
    session.place(&order()).await;
    until_database(&app, "healthy", "").await;
    run(
        &app,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    session
        .post("/api/v1/orders", &order())
        .await
        .expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    let report = until_database(&app, "degraded", "No space left on device").await;
    assert_eq!((report.status, &report.json["status"]), (StatusCode::OK, &"degraded".into()));
    // Reads are still served.
    app.expect_ready().await;
    run(&app, "DROP TRIGGER refuse ON orders").await;
    eventually("orders are taken again", async || {
        session.post("/api/v1/orders", &order()).await.status == StatusCode::CREATED
    })
    .await;
    until_database(&app, "healthy", "").await;
}

#[tokio::test]
async fn a_server_that_accepts_writes_again_is_noticed_without_a_write() {
    let app = TestApp::start().await;
    let session = app.login(7).await;
    run(
        &app,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    session
        .post("/api/v1/orders", &order())
        .await
        .expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    until_database(&app, "degraded", "No space left on device").await;
    run(&app, "DROP TRIGGER refuse ON outbox").await;
    until_database(&app, "healthy", "").await;
    let trials: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&app.db).await.unwrap();
    assert_eq!(trials, 0, "the trial is taken back");
}

#[tokio::test]
async fn a_read_only_server_is_not_ready_and_is_named() {
    let database = testbed::postgres().await;
    let db = database.connect().await;
    let read_only = async |on: &str| {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {on}', current_database()); END $$"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&db).await.expect("the database is altered");
    };
    read_only("on").await;
    let app = TestApp::start_with(TestApp::with(), database, testbed::redis().await).await;
    until_database(&app, "unhealthy", "read-only").await;
    until_not_ready(&app, "read-only").await;
}

#[tokio::test]
async fn a_lock_on_a_table_is_named_with_its_session() {
    let app = TestApp::start().await;
    until_database(&app, "healthy", "").await;
    let database = app.app.state.config.database_url.clone();
    let mut operator =
        PgConnection::connect(secrecy::ExposeSecret::expose_secret(&database)).await.expect("a connection");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut operator).await.unwrap();
    sqlx::raw_sql(
        "SET application_name = 'an operator'; BEGIN; LOCK TABLE order_history IN ACCESS EXCLUSIVE MODE",
    )
    .execute(&mut operator)
    .await
    .expect("the lock");
    let detail = format!(
        "the session with pid {pid} (\"an operator\", idle in transaction) holds AccessExclusiveLock on the table order_history"
    );
    let report = until_database(&app, "degraded", &detail).await;
    assert_eq!(report.status, StatusCode::OK);
    drop(operator);
    until_database(&app, "healthy", "").await;
}

#[tokio::test]
async fn a_relay_without_progress_while_events_wait_makes_the_api_degraded_at_once() {
    let app = TestApp::start().await;
    let session = app.login(7).await;
    // Answers PING, and refuses every event.
    let mut redis = app.redis_connection().await;
    let _: () =
        redis::cmd("SET").arg("events:orders").arg("no stream").query_async(&mut redis).await.unwrap();
    session.place(&order()).await;
    let report = eventually("the events are degraded", async || {
        Some(app.get(HEALTH).await).filter(|report| report.json["services"]["events"]["status"] != "healthy")
    })
    .await;
    assert_ne!(report.json["status"], "healthy");
    let detail = report.json["services"]["events"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("Redis Streams"), "{}", report.json);
    let _: () = redis::cmd("DEL").arg("events:orders").query_async(&mut redis).await.unwrap();
    eventually("the events are healthy", async || {
        app.get(HEALTH).await.json["services"]["events"]["status"] == "healthy"
    })
    .await;
}
