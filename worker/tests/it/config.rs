//! Settings are checked before anything connects.

use crate::support::binary::worker_with;

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
const REDIS: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1:1");

#[tokio::test]
async fn a_missing_or_bad_setting_is_one_line_that_names_it_and_exit_code_2() {
    for (env, named) in [
        (vec![REDIS], "DATABASE_URL"),
        (vec![DATABASE], "REDIS_URL"),
        (vec![("DATABASE_URL", "mysql://secret@host/db"), REDIS], "DATABASE_URL"),
        (vec![DATABASE, REDIS, ("EVENT_SYSTEM", "kafka")], "EVENT_SYSTEM"),
        (vec![DATABASE, REDIS, ("EVENT_SYSTEM", "sqs")], "SQS_QUEUE_URL"),
        (vec![DATABASE, REDIS, ("EVENT_SYSTEM", "rabbitmq")], "AMQP_URL"),
        (vec![DATABASE, REDIS, ("WORKER_CONCURRENCY", "0")], "WORKER_CONCURRENCY"),
        (vec![DATABASE, REDIS, ("WORKER_BATCH_SIZE", "many")], "WORKER_BATCH_SIZE"),
        (vec![DATABASE, REDIS, ("EVENT_MAX_ATTEMPTS", "-1")], "EVENT_MAX_ATTEMPTS"),
        (vec![DATABASE, REDIS, ("CACHE_TTL_SECONDS", "0")], "CACHE_TTL_SECONDS"),
        (vec![DATABASE, REDIS, ("METRICS_ADDR", "here")], "METRICS_ADDR"),
        (vec![DATABASE, REDIS, ("LOG_LEVEL", "LOUD")], "LOG_LEVEL"),
    ] {
        for command in [&[] as &[&str], &["dead-letters", "list"], &["verify"]] {
            let said = worker_with(&env, command).await;
            assert_eq!(said.code, Some(2), "{named}: {said:?}");
            assert!(said.err.starts_with(named), "{named}: {said:?}");
            assert_eq!(said.err.trim_end().lines().count(), 1, "{named}: {said:?}");
            assert!(!said.err.contains("secret"), "{said:?}");
        }
    }
}

#[tokio::test]
async fn help_needs_no_settings_and_names_every_command() {
    let help = worker_with(&[], &["--help"]).await.ok();
    for command in ["run", "dead-letters", "replay", "rebuild-cache", "verify"] {
        assert!(help.contains(command), "{help}");
    }
    let help = worker_with(&[], &["dead-letters", "redrive", "--help"]).await.ok();
    for option in ["--all", "--rate", "--source", "--event-type", "--order", "--since", "--until"] {
        assert!(help.contains(option), "{help}");
    }
}
