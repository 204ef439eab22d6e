//! One line starts an API on a port of its own with a database and Redis of its own; one line drains it.

use std::{net::SocketAddr, time::Duration};

use api::{app::App, config::ApiConfig};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use shared::{
    domain::clock::Clock,
    platform::{config::Env, shutdown::Shutdown},
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

/// Signs the tokens of all tests.
pub(crate) const SECRET: &str = "a secret of the tests, of 32 bytes or more";

/// A running API with servers of its own.
pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) db: PgPool,
    pub(crate) redis: testbed::RedisDb,
    /// Dropped with the test, and not before.
    _database: testbed::Database,
    base: String,
    client: reqwest::Client,
    shutdown: Shutdown,
}

/// Changes settings that no environment variable does.
type Tune = Box<dyn FnOnce(&mut ApiConfig) + Send>;

/// What a test wants to be different.
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

    /// Gives it another clock than the system's.
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Changes what no environment variable does.
    pub(crate) fn tune(mut self, tune: impl FnOnce(&mut ApiConfig) + Send + 'static) -> Self {
        self.tune = Some(Box::new(tune));
        self
    }

    /// Has limits count exactly, at times that the test owns: on a busy machine Redis would now and then take too long
    /// for them, and what real time earns back would depend on the machine.
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
        let shutdown = Shutdown::new();
        let app = App::start(config, options.clock, &shutdown).await.expect("the API starts");
        let db = database.connect().await;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_mins(1))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        Self { base: format!("http://{}", app.addr), app, db, _database: database, redis, client, shutdown }
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
        let shutdown = Shutdown::new();
        let app =
            App::start(config, self.app.state.clock.clone(), &shutdown).await.expect("the replica starts");
        Replica { base: format!("http://{}", app.addr), app, shutdown }
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

    /// Logs a customer in.
    pub(crate) async fn login(&self, customer_id: i64) -> Session {
        self.login_as(&json!({"customer_id": customer_id})).await
    }

    /// A customer whose access token is signed here, for an app whose PostgreSQL is away: no login works there.
    pub(crate) fn session(&self, customer_id: i64) -> Session {
        let now = Clock::System.now().unix_timestamp();
        let claims = json!({"sub": customer_id.to_string(), "customer_id": customer_id, "role": "customer",
            "type": "access", "iat": now, "exp": now + 1800, "jti": Uuid::now_v7()});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let access = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        Session { base: self.base.clone(), client: self.client.clone(), access, refresh: String::new() }
    }

    /// Logs an administrator in.
    pub(crate) async fn login_admin(&self, customer_id: i64) -> Session {
        self.login_as(&json!({"customer_id": customer_id, "role": "admin"})).await
    }

    async fn login_as(&self, body: &Value) -> Session {
        let pair = self.post("/api/v1/auth/login-test", body).await.expect(StatusCode::OK);
        let text = |name: &str| pair.json[name].as_str().expect("a token").to_owned();
        Session {
            base: self.base.clone(),
            client: self.client.clone(),
            access: text("accessToken"),
            refresh: text("refreshToken"),
        }
    }

    /// Writes bytes to a connection of its own and reads until a whole answer with its body has come, or the end.
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

    /// Stops it as SIGTERM does, and waits until all it runs has ended.
    pub(crate) async fn drain(self) {
        self.shutdown.begin();
        assert!(self.shutdown.drained(Duration::from_secs(30)).await, "the API does not drain");
    }
}

/// Another API on the servers of a [`TestApp`].
pub(crate) struct Replica {
    pub(crate) app: App,
    base: String,
    shutdown: Shutdown,
}

impl Replica {
    /// The same caller, calling this replica.
    pub(crate) fn session(&self, session: &Session) -> Session {
        Session { base: self.base.clone(), ..session.clone() }
    }

    /// Stops it as SIGTERM does, and waits until all it runs has ended.
    pub(crate) async fn drain(self) {
        self.shutdown.begin();
        assert!(self.shutdown.drained(Duration::from_secs(30)).await, "the replica does not drain");
    }
}

/// Somebody who is logged in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) access: String,
    pub(crate) refresh: String,
    base: String,
    client: reqwest::Client,
}

impl Session {
    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.access)
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

    /// `DELETE` with the token.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// The body, where it is JSON; else `null`.
    pub(crate) json: Value,
}

impl Answer {
    /// Checks the status, showing the body where it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Checks that it is a complete problem document with this code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: StatusCode, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json["code"], code, "{}", answer.json);
        assert_eq!(answer.json["status"], status.as_u16());
        assert_eq!(answer.json["type"], format!("/problems/{}", code.replace('_', "-")));
        assert_eq!(answer.json["request_id"].as_str(), answer.header("x-request-id"));
        for member in ["title", "detail", "instance"] {
            assert!(answer.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}");
        }
        answer
    }

    /// The faults of a 422 as `pointer code`, sorted.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<String> {
        let fault = |fault: &Value| {
            let text = |name: &str| fault[name].as_str().expect("a text").to_owned();
            format!("{} {}", text("pointer"), text("code"))
        };
        let mut faults: Vec<String> =
            self.json["errors"].as_array().expect("a list of faults").iter().map(fault).collect();
        faults.sort();
        faults
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }
}

/// Sends a request and reads the answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await
}

async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.expect("a whole body").to_vec();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, headers, bytes, json }
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
