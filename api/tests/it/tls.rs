//! TLS to everything the API depends on, told by URLs alone, with a certificate authority that nobody but the operator
//! knows.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use testbed::{PrivatePostgres, PrivateRedis, eventually};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::process::Running;

/// A certificate authority, and a certificate of it for one name.
struct Authority {
    folder: PathBuf,
    certificate: String,
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new([]).expect("no names");
        authority.distinguished_name.push(DnType::CommonName, Uuid::now_v7().to_string());
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&authority_key).expect("a certificate");
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new([name.to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");

        let folder = std::env::temp_dir().join(format!("orders-tls-{}", Uuid::now_v7()));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), root.pem()).expect("a file");
        fs::write(folder.join("certificate.pem"), leaf.pem()).expect("a file");
        fs::write(folder.join("key.pem"), key.serialize_pem()).expect("a file");
        Self { folder, certificate: leaf.pem(), key, chain: vec![leaf.der().clone()] }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Speaks TLS, and hands on what it hears to a server that does not.
    async fn terminate(&self, server: String) -> SocketAddr {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(self.chain.clone(), key)
        .expect("a certificate with its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let (mut outside, mut inside) =
                        (acceptor.accept(stream).await?, TcpStream::connect(server).await?);
                    copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        address
    }

    /// Has a PostgreSQL speak TLS; gives the part of its URL before the query.
    async fn secure_postgres(&self, server: &PrivatePostgres) -> String {
        let mut admin = PgConnection::connect(server.url()).await.expect("PostgreSQL answers");
        let folder: String =
            sqlx::query_scalar("SHOW data_directory").fetch_one(&mut admin).await.expect("a path");
        let folder = PathBuf::from(folder);
        for (name, content) in
            [("server.crt", self.certificate.clone()), ("server.key", self.key.serialize_pem())]
        {
            let path = folder.join(name);
            // Written by the server, because its key must be its own.
            let object: i64 = sqlx::query_scalar("SELECT lo_from_bytea(0, $1)::bigint")
                .bind(content.into_bytes())
                .fetch_one(&mut admin)
                .await
                .expect("taken");
            sqlx::query("SELECT lo_export($1::oid, $2)")
                .bind(object)
                .bind(path.display().to_string())
                .execute(&mut admin)
                .await
                .expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its key");
        }
        for sql in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            sqlx::query(sql).execute(&mut admin).await.expect("done");
        }
        server.url().to_owned()
    }

    /// Has a Redis speak TLS on another port.
    async fn secure_redis(&self, server: &PrivateRedis) -> String {
        let mut admin = testbed::connect_redis(server.url()).await.expect("Redis answers");
        let port = testbed::free_port();
        let _: () = redis::cmd("CONFIG")
            .arg("SET")
            .arg(&["tls-cert-file", &self.file("certificate.pem"), "tls-key-file", &self.file("key.pem")])
            .arg(&["tls-ca-cert-file", &self.file("ca.pem"), "tls-auth-clients", "no"])
            .arg(&["tls-port", &port.to_string()])
            .query_async(&mut admin)
            .await
            .expect("a Redis that knows TLS");
        format!("rediss://127.0.0.1:{port}/0")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.folder);
    }
}

/// Everything the API depends on, behind TLS.
struct Secured {
    settings: Vec<(&'static str, String)>,
    _servers: (PrivatePostgres, PrivateRedis, testbed::Vhost),
}

impl Secured {
    /// With certificates of `authority`, which clients know by `known`.
    async fn new(authority: &Authority, known: &Authority) -> Self {
        let (postgres, redis, rabbitmq) =
            (testbed::private_postgres().await, testbed::private_redis().await, testbed::rabbitmq().await);
        let (scheme, rest) = rabbitmq.url().split_once("://").expect("a URL");
        assert_eq!(scheme, "amqp");
        let (user, rest) = rest.rsplit_once('@').expect("a user");
        let (server, vhost) = rest.split_once('/').expect("a virtual host");
        let broker = authority.terminate(server.to_owned()).await;
        let keys = authority.terminate(publish_keys().await.to_string()).await;
        let root = known.file("ca.pem");
        let settings = vec![
            (
                "DATABASE_URL",
                format!(
                    "{}?sslmode=verify-full&sslrootcert={root}",
                    authority.secure_postgres(&postgres).await
                ),
            ),
            ("REDIS_URL", authority.secure_redis(&redis).await),
            ("EVENT_SYSTEM", "rabbitmq".to_owned()),
            ("AMQP_URL", format!("amqps://{user}@{broker}/{vhost}")),
            ("JWT_JWKS_URL", format!("https://{keys}/keys")),
            ("JWT_ISSUER", "https://id.example".to_owned()),
            ("JWT_AUDIENCE", "orders".to_owned()),
            ("SSL_CERT_FILE", root),
            ("DEBUG", "true".to_owned()),
            ("RUST_LOG", "info".to_owned()),
        ];
        Self { settings, _servers: (postgres, redis, rabbitmq) }
    }

    async fn api(&self) -> Running {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Running::start(&settings).await
    }
}

/// An identity provider with one key.
async fn publish_keys() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // The example of RFC 8037, appendix A.2.
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1",
                                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let router = Router::new().route("/keys", get(async move || Json(keys)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A token that its provider has not signed.
fn forged() -> String {
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({"alg": "EdDSA", "kid": "1"}));
    format!("{header}.{}.{}", part(json!({})), URL_SAFE_NO_PAD.encode([0; 64]))
}

async fn log_in(api: &Running) -> reqwest::Response {
    let login = api.request(Method::POST, "/api/v1/auth/login-test").json(&json!({"customer_id": 1}));
    login.send().await.expect("an answer")
}

async fn status_of_forged(api: &Running) -> StatusCode {
    let asked = api.request(Method::GET, "/api/v1/orders").bearer_auth(forged());
    asked.send().await.expect("an answer").status()
}

#[tokio::test]
async fn every_dependency_can_be_reached_by_tls_with_a_private_authority() {
    let authority = Authority::new("127.0.0.1");
    let secured = Secured::new(&authority, &authority).await;
    let api = secured.api().await;
    eventually("everything is healthy", async || {
        let health = api.request(Method::GET, "/api/v1/health").send().await.expect("an answer");
        let health: Value = health.json().await.expect("a report");
        (health["status"] == "healthy").then_some(()).ok_or(health)
    })
    .await;

    let pair: Value = log_in(&api).await.json().await.expect("a token pair");
    let order =
        json!({"order_date": "2025-01-20", "lines": [{"product_id": 1, "quantity": 1, "unit_price": 1}]});
    let placed = api
        .request(Method::POST, "/api/v1/orders")
        .bearer_auth(pair["accessToken"].as_str().expect("a token"))
        .json(&order);
    assert_eq!(placed.send().await.expect("an answer").status(), StatusCode::CREATED);
    // Its keys are there: the signature is looked at.
    assert_eq!(status_of_forged(&api).await, StatusCode::UNAUTHORIZED);
    eventually("the event is confirmed", async || {
        let health = api.request(Method::GET, "/api/v1/health").send().await.expect("an answer");
        let health: Value = health.json().await.expect("a report");
        (health["services"]["events"]["unpublished"] == 0).then_some(()).ok_or(health)
    })
    .await;
    api.stop().await;
}

/// What the log says where nothing is reached.
async fn complaints(authority: &Authority, known: &Authority) -> String {
    let secured = Secured::new(authority, known).await;
    let api = secured.api().await;
    assert_eq!(log_in(&api).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status_of_forged(&api).await, StatusCode::SERVICE_UNAVAILABLE);
    let health = api.request(Method::GET, "/api/v1/health").send().await.expect("an answer");
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    String::from_utf8_lossy(&api.stop().await.stdout).into_owned()
}

/// Four lines at least, one for each dependency, say what is wrong with the certificate.
fn assert_each_says(log: &str, what: &str) {
    let saying = |part: &str| log.lines().any(|line| line.contains(part) && line.contains(what));
    for part in ["with database", "Redis failed", "RabbitMQ", "identity provider"] {
        assert!(saying(part), "{part} does not say {what}: {log}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_the_log_says_so() {
    let (theirs, ours) = (Authority::new("127.0.0.1"), Authority::new("127.0.0.1"));
    assert_each_says(&complaints(&theirs, &ours).await, "UnknownIssuer");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_the_log_says_so() {
    let authority = Authority::new("other.example");
    assert_each_says(&complaints(&authority, &authority).await, "not valid for name");
}
