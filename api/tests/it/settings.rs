//! The settings of the program: what is accepted, and the errors of what is not.

use api::auth::{AuthConfig, PUBLISHED_SECRET};
use shared::platform::config::Env;

use crate::{
    process::{Running, bare},
    support::SECRET,
};

#[tokio::test]
async fn a_bad_or_missing_setting_is_one_line_that_names_it_and_exit_code_2() {
    let good = [
        ("DATABASE_URL", "postgres://127.0.0.1/x"),
        ("REDIS_URL", "redis://127.0.0.1"),
        ("JWT_SECRET", SECRET),
    ];
    for (name, value) in [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://127.0.0.1/x"),
        ("REDIS_URL", ""),
        ("JWT_SECRET", ""),
        ("JWT_SECRET", "short"),
        ("JWT_SECRET", PUBLISHED_SECRET),
        ("JWT_PREVIOUS_SECRETS", PUBLISHED_SECRET),
        ("PORT", "a lot"),
        ("RATE_LIMIT_CUSTOMER", "many"),
        ("TRUSTED_PROXIES", "-1"),
        ("LOCAL_ACCOUNTS", "perhaps"),
        ("CORS_ALLOWED_ORIGINS", "shop.example"),
        ("CORS_ALLOWED_ORIGINS", "https://shop.example:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/?a=b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("DEBUG", "perhaps"),
        ("TOKIO_WORKER_THREADS", "0"),
    ] {
        let output = bare().envs(good).env(name, value).output().await.expect("the program runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {complaint}");
        assert!(complaint.starts_with(&format!("{name}: ")), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(!complaint.contains(SECRET), "{complaint}");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_one_line_that_names_its_setting_and_exit_code_2() {
    use testbed::bad_urls::{AMQP, HTTP, POSTGRES, REDIS};

    let good = [
        ("DATABASE_URL", "postgres://127.0.0.1/x"),
        ("REDIS_URL", "redis://127.0.0.1"),
        ("JWT_SECRET", SECRET),
        ("JWT_ISSUER", "issuer"),
        ("JWT_AUDIENCE", "audience"),
    ];
    for (command, name, urls) in [
        ("migrate", "DATABASE_URL", POSTGRES),
        ("serve", "DATABASE_URL", POSTGRES),
        ("serve", "DATABASE_READ_URL", POSTGRES),
        ("serve", "REDIS_URL", REDIS),
        ("serve", "EVENTS_REDIS_URL", REDIS),
        ("serve", "AMQP_URL", AMQP),
        ("serve", "SQS_QUEUE_URL", HTTP),
        ("serve", "AWS_ENDPOINT_URL", HTTP),
        ("serve", "JWT_JWKS_URL", HTTP),
        ("serve", "OTEL_EXPORTER_OTLP_ENDPOINT", HTTP),
    ] {
        for url in urls {
            let output = bare().arg(command).envs(good).env(name, url).output().await.expect("it runs");
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} {name}={url}: {complaint}");
            assert!(complaint.starts_with(&format!("{name}: ")), "{name}={url}: {complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
            assert!(!complaint.contains(testbed::bad_urls::SECRET), "{url}: {complaint}");
        }
    }
}

/// Runs the program in a folder with this `.env`; returns its exit code and what it reports.
async fn run_with_file(file: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = std::env::temp_dir().join(format!("env-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(".env"), file).expect("a file");
    let output = bare().current_dir(&folder).envs(env.iter().copied()).output().await.expect("it runs");
    std::fs::remove_dir_all(&folder).expect("removed");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn an_unreadable_line_of_the_env_file_is_named_by_its_number_and_not_shown() {
    for line in ["JWT_SECRET='hunter2", "hunter2", "JWT_SECRET=\"\\hunter2\"", "JWT_SECRET='a'hunter2"] {
        let (code, complaint) = run_with_file(&format!("DEBUG=true\n{line}\n"), &[]).await;
        assert_eq!(code, Some(2), "{line}: {complaint}");
        assert!(complaint.starts_with(".env: ") && complaint.contains("line 2"), "{complaint}");
        assert!(!complaint.contains("hunter2") && complaint.lines().count() == 1, "{complaint}");
    }
}

#[tokio::test]
async fn an_empty_variable_is_not_set_and_the_env_file_is_used() {
    // The last setting is wrong, so that the program ends after it has read all others.
    let file = format!(
        "DATABASE_URL=postgres://127.0.0.1/x\nREDIS_URL=redis://127.0.0.1\nJWT_SECRET='{SECRET}'\nPORT=from the file\n"
    );
    let (code, complaint) = run_with_file(&file, &[("JWT_SECRET", ""), ("PORT", " ")]).await;
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.starts_with("PORT: \"from the file\""), "{complaint}");
    let (_, complaint) = run_with_file(&file, &[("PORT", "from the environment")]).await;
    assert!(complaint.starts_with("PORT: \"from the environment\""), "{complaint}");
}

#[tokio::test]
async fn a_dollar_sign_in_the_env_file_is_a_part_of_the_value() {
    for (written, value) in [
        ("pa$$word-$HOME", "pa$$word-$HOME"),
        ("'pa$$word-${HOME}'", "pa$$word-${HOME}"),
        ("\"pa$word-${HOME}\"", "pa$word-${HOME}"),
    ] {
        let file = format!(
            "DATABASE_URL=postgres://127.0.0.1/x\nREDIS_URL=redis://127.0.0.1\nJWT_SECRET='{SECRET}'\nPORT={written}\n"
        );
        let (_, complaint) = run_with_file(&file, &[("HOME", "/elsewhere")]).await;
        assert!(complaint.starts_with(&format!("PORT: {value:?}")), "{written}: {complaint}");
    }
}

#[tokio::test]
async fn with_debug_the_api_listens_on_loopback_and_warns_of_login_test() {
    let listen = |settings: &[(&str, &str)]| {
        let required = [
            ("DATABASE_URL", "postgres://127.0.0.1/x"),
            ("REDIS_URL", "redis://127.0.0.1"),
            ("JWT_SECRET", SECRET),
        ];
        let env = required.iter().chain(settings).copied().collect::<Env>();
        api::config::ApiConfig::from_env(&env).expect("settings").listen.to_string()
    };
    assert_eq!(listen(&[]), "0.0.0.0:8000");
    assert_eq!(listen(&[("DEBUG", "true")]), "127.0.0.1:8000");
    assert_eq!(listen(&[("DEBUG", "true"), ("HOST", "0.0.0.0"), ("PORT", "80")]), "0.0.0.0:80");

    for (debug, warns) in [("true", true), ("false", false)] {
        let output = Running::start(&[("DEBUG", debug)]).await.stop().await;
        let log = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            log.contains("login-test gives a token of any role and tenant to everyone"),
            warns,
            "{log}"
        );
    }
}

#[test]
fn the_key_of_the_development_settings_is_accepted_only_with_debug() {
    for settings in [include_str!("../../../.env.example"), include_str!("../../../docker-compose.yml")] {
        assert!(settings.contains(PUBLISHED_SECRET));
    }
    let config = |debug| {
        let settings = [("JWT_SECRET", PUBLISHED_SECRET), ("DEBUG", debug)];
        AuthConfig::from_env(&Env::from_iter(settings), debug == "true")
    };
    assert!(config("true").is_ok());
    assert!(config("false").is_err());
}

#[test]
fn keys_are_fetched_by_tls_or_from_this_machine() {
    let with = |url: &str| {
        let settings = [
            ("JWT_JWKS_URL", url),
            ("JWT_ISSUER", "https://id.example"),
            ("JWT_AUDIENCE", "orders"),
            ("JWT_SECRET", SECRET),
        ];
        AuthConfig::from_env(&settings.into_iter().collect(), false)
    };
    for url in [
        "https://id.example/keys",
        "https://127.0.0.1:8443/keys",
        "http://localhost:8080/keys",
        "http://127.0.0.53/keys",
        "http://[::1]:8080/keys",
    ] {
        assert!(with(url).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "http://127.0.0.1@id.example/keys",
        "http://10.0.0.1/keys",
        "https://",
        "https://id.example:99999/keys",
        "file:///keys",
        "id.example/keys",
    ] {
        let error = with(url).expect_err(url).to_string();
        assert!(error.starts_with("JWT_JWKS_URL: "), "{error}");
    }
}

#[test]
fn a_provider_without_issuer_or_audience_is_refused_at_start() {
    let with = |names: &[&'static str]| {
        let settings = names.iter().map(|name| (*name, "https://id.example/keys"));
        let settings = settings.chain([("JWT_SECRET", SECRET)]);
        AuthConfig::from_env(&settings.collect(), false).map_err(|error| error.to_string())
    };
    assert!(with(&["JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"]).is_ok());
    assert!(with(&["JWT_JWKS_URL", "JWT_AUDIENCE"]).is_err_and(|error| error.starts_with("JWT_ISSUER")));
    assert!(with(&["JWT_JWKS_URL", "JWT_ISSUER"]).is_err_and(|error| error.starts_with("JWT_AUDIENCE")));
    // A URL is no name of a tenant.
    let all = ["JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "JWT_TENANT"];
    assert!(with(&all).is_err_and(|error| error.starts_with("JWT_TENANT")));
}
