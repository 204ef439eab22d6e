//! One line starts an API on a port of its own, with a database and Redis of its own. It drains when it is dropped.

mod answer;

use std::{
    net::SocketAddr,
    sync::{LazyLock, mpsc},
    time::Duration,
};

use api::{app::App, config::ApiConfig};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use shared::{
    domain::clock::Clock,
    platform::{config::Env, shutdown::Shutdown},
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
};
use uuid::Uuid;

pub(crate) use self::answer::{Answer, answer, until_available};

/// Signs the tokens of all tests.
pub(crate) const SECRET: &str = "a secret of the tests, of 32 bytes or more";

/// The runtime of the APIs. It is not the tests' own, so that a test that ends can block until its API has drained.
static APP_RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// How long an API can take to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// A running API with servers of its own.
pub(crate) struct TestApp {
    /// The first field, so that the API drains before its servers are dropped.
    drain: DrainOnDrop,
    pub(crate) app: App,
    pub(crate) db: PgPool,
    pub(crate) redis: testbed::RedisDb,
    _database: testbed::Database,
    base: String,
    client: reqwest::Client,
}

/// Stops an API as SIGTERM does, and asserts that all its tasks end.
struct DrainOnDrop(Shutdown);

impl DrainOnDrop {
    async fn drain(&self) {
        self.0.begin();
        assert!(self.0.drained(DRAIN_LIMIT).await, "the API does not drain");
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        self.0.begin();
        if std::thread::panicking() {
            return;
        }
        let (sender, drained) = mpsc::channel();
        let shutdown = self.0.clone();
        APP_RUNTIME.spawn(async move { sender.send(shutdown.drained(DRAIN_LIMIT).await) });
        assert_eq!(drained.recv(), Ok(true), "the API does not drain");
    }
}

/// Starts an API on the runtime of the APIs.
async fn start_app(config: ApiConfig, clock: Clock) -> (App, DrainOnDrop) {
    let shutdown = Shutdown::new();
    let drain = DrainOnDrop(shutdown.clone());
    let started = APP_RUNTIME.spawn(async move { App::start(config, clock, &shutdown).await });
    (started.await.expect("no panic").expect("the API starts"), drain)
}

/// Changes settings that have no environment variable.
type Tune = Box<dyn FnOnce(&mut ApiConfig) + Send>;

/// The settings of a test.
#[derive(Default)]
pub(crate) struct Options {
    settings: Vec<(String, String)>,
    clock: Clock,
    tune: Option<Tune>,
}

impl Options {
    /// Sets an environment variable of the API.
    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Uses another clock than the system's.
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Changes settings that have no environment variable.
    pub(crate) fn tune(mut self, tune: impl FnOnce(&mut ApiConfig) + Send + 'static) -> Self {
        self.tune = Some(Box::new(tune));
        self
    }

    /// Makes limits count exactly, by a clock that the test owns: on a busy machine Redis would sometimes answer too late,
    /// and what is earned back would depend on the machine.
    pub(crate) fn exact_limits(self, clock: &Clock) -> Self {
        self.clock(clock).tune(|config| config.http.rate_limits.deadline = Duration::from_secs(30))
    }

    /// Starts it.
    pub(crate) async fn start(self) -> TestApp {
        TestApp::start_with(self, testbed::postgres().await, testbed::redis().await).await
    }
}

impl TestApp {
    /// An API with the settings of development.
    pub(crate) async fn start() -> Self {
        Options::default().start().await
    }

    /// An API whose settings a test changes first.
    pub(crate) fn with() -> Options {
        Options::default()
    }

    /// An API on these servers.
    pub(crate) async fn start_with(
        options: Options,
        database: testbed::Database,
        redis: testbed::RedisDb,
    ) -> Self {
        let mut settings = vec![
            ("DATABASE_URL".to_owned(), database.url().to_owned()),
            ("DATABASE_MAX_CONNECTIONS".to_owned(), "4".to_owned()),
            ("REDIS_URL".to_owned(), redis.url().to_owned()),
            ("JWT_SECRET".to_owned(), SECRET.to_owned()),
            ("HOST".to_owned(), "127.0.0.1".to_owned()),
            ("PORT".to_owned(), "0".to_owned()),
            ("DEBUG".to_owned(), "true".to_owned()),
        ];
        settings.extend(options.settings);
        let mut config = ApiConfig::from_env(&Env::from_iter(settings)).expect("the settings of the test");
        if let Some(tune) = options.tune {
            tune(&mut config);
        }
        let (app, drain) = start_app(config, options.clock).await;
        let db = database.connect().await;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        Self { base: format!("http://{}", app.addr), app, db, _database: database, redis, client, drain }
    }

    /// A second API on the same servers: another replica.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_with(|_| {}).await
    }

    /// A second API whose settings a test changes first.
    pub(crate) async fn replica_with(&self, tune: impl FnOnce(&mut ApiConfig)) -> Replica {
        let mut config = self.app.state.config.clone();
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        tune(&mut config);
        let (app, drain) = start_app(config, self.app.state.clock.clone()).await;
        Replica { base: format!("http://{}", app.addr), app, drain }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// `GET` without a token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// `POST` of JSON without a token.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Asserts that it is ready. Its probe has a second, which may be too short on a busy machine once.
    pub(crate) async fn expect_ready(&self) {
        let ready = until_available(async || self.get("/api/v1/health/ready").await).await;
        assert_eq!(ready.expect(StatusCode::OK).json["status"], "ready");
    }

    /// Logs a customer in.
    pub(crate) async fn login(&self, customer_id: i64) -> Session {
        self.login_as(&json!({"customer_id": customer_id})).await
    }

    /// A customer whose access token is signed here, for an API whose PostgreSQL is down, where no login works.
    pub(crate) fn session(&self, customer_id: i64) -> Session {
        let now = Clock::System.now().unix_timestamp();
        let claims = json!({"sub": customer_id.to_string(), "customer_id": customer_id, "role": "customer",
            "type": "access", "iat": now, "exp": now + 1800, "jti": Uuid::now_v7()});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let access = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        Session {
            base: self.base.clone(),
            client: self.client.clone(),
            access,
            refresh: String::new(),
            acts_in: None,
        }
    }

    /// Logs an administrator in.
    pub(crate) async fn login_admin(&self, customer_id: i64) -> Session {
        self.login_as(&json!({"customer_id": customer_id, "role": "admin"})).await
    }

    /// Logs in with a body of one's own.
    pub(crate) async fn login_as(&self, body: &Value) -> Session {
        let pair = self.post_until_available("/api/v1/auth/login-test", body).await.expect(StatusCode::OK);
        let text = |name: &str| pair.json[name].as_str().expect("a token").to_owned();
        Session {
            base: self.base.clone(),
            client: self.client.clone(),
            access: text("accessToken"),
            refresh: text("refreshToken"),
            acts_in: None,
        }
    }

    /// Trades a refresh token for the next pair.
    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post_until_available("/api/v1/auth/refresh", &json!({"refresh_token": token})).await
    }

    /// [`Self::post`] of what needs Redis, as [`until_available`] repeats it.
    pub(crate) async fn post_until_available(&self, path: &str, body: &Value) -> Answer {
        until_available(async || self.post(path, body).await).await
    }

    /// Writes bytes to a connection of its own, and reads until a whole response has arrived, or the end.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.app.addr).await.expect("a connection");
        stream.write_all(request).await.expect("the request is taken");
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            let body =
                text.split_once("\r\n\r\n").map(|(head, body)| (head.to_ascii_lowercase(), body.len()));
            let whole =
                body.is_some_and(|(head, length)| head.contains(&format!("content-length: {length}\r\n")));
            if whole || stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return String::from_utf8_lossy(&answer).into_owned();
            }
        }
    }

    /// Stops it as SIGTERM does, and waits until all its tasks have ended: for tests whose own tasks the API needs
    /// meanwhile, such as a proxy, and for tests of the shutdown.
    pub(crate) async fn drain(self) {
        self.drain.drain().await;
    }
}

/// Another API on the servers of a [`TestApp`].
pub(crate) struct Replica {
    drain: DrainOnDrop,
    pub(crate) app: App,
    base: String,
}

impl Replica {
    /// The same caller, calling this replica.
    pub(crate) fn session(&self, session: &Session) -> Session {
        Session { base: self.base.clone(), ..session.clone() }
    }

    /// Stops it as [`TestApp::drain`] does.
    pub(crate) async fn drain(self) {
        self.drain.drain().await;
    }
}

/// A caller who is logged in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) access: String,
    pub(crate) refresh: String,
    /// The tenant that the header of its requests names.
    pub(crate) acts_in: Option<i64>,
    base: String,
    client: reqwest::Client,
}

impl Session {
    /// The same operator, acting in a tenant.
    pub(crate) fn acting_in(&self, tenant: i64) -> Self {
        Self { acts_in: Some(tenant), ..self.clone() }
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.access);
        match self.acts_in {
            Some(tenant) => request.header("x-tenant-id", tenant),
            None => request,
        }
    }

    /// `GET` with the token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// `POST` of JSON with the token.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// `PUT` of JSON with the token.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PUT, path).json(body)).await
    }

    /// `PATCH` of JSON with the token.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(body)).await
    }

    /// Gets a ticket for a stream.
    pub(crate) async fn ticket(&self) -> Answer {
        let answer = until_available(async || self.post("/api/v1/events/tickets", &json!({})).await).await;
        answer.expect(StatusCode::CREATED)
    }

    /// `DELETE` with the token.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }
}

/// The claims of a token.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("JSON")
}

/// Host and port of the server that a variable such as `REDIS_URL` names.
pub(crate) fn server_address(variable: &str) -> String {
    let url = testbed::setting(variable).expect("`cargo xtask test` sets it");
    let authority =
        url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}
