//! Settings are checked before anything connects.

use crate::support::{World, binary::worker_with};

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
async fn a_url_that_cannot_be_used_is_one_line_that_names_its_setting_and_exit_code_2() {
    use testbed::bad_urls;

    let commands: [&[&str]; 5] =
        [&["run"], &["verify"], &["dead-letters", "list"], &["replay", "--order", "1"], &["rebuild-cache"]];
    for (name, urls) in [
        ("DATABASE_URL", bad_urls::POSTGRES),
        ("REDIS_URL", bad_urls::REDIS),
        ("EVENTS_REDIS_URL", bad_urls::REDIS),
        ("AMQP_URL", bad_urls::AMQP),
        ("SQS_QUEUE_URL", bad_urls::HTTP),
        ("AWS_ENDPOINT_URL", bad_urls::HTTP),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", bad_urls::HTTP),
    ] {
        // All commands read the same settings, so each is tried with a part of the addresses.
        for (url, command) in urls.iter().zip(commands.iter().cycle()) {
            let others = [DATABASE, REDIS].into_iter().filter(|(other, _)| *other != name);
            let env: Vec<_> = others.chain([(name, *url)]).collect();
            let said = worker_with(&env, command).await;
            assert_eq!(said.code, Some(2), "{name}={url}: {said:?}");
            assert!(said.err.starts_with(&format!("{name}: ")), "{name}={url}: {said:?}");
            assert_eq!(said.err.trim_end().lines().count(), 1, "{name}={url}: {said:?}");
            assert!(!said.err.contains(bad_urls::SECRET), "{name}={url}: {said:?}");
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

#[tokio::test]
async fn sqs_or_rabbitmq_that_is_not_set_up_is_one_line_that_says_what_to_do_and_exit_code_1() {
    let (world, sqs, vhost) = tokio::join!(World::new(), testbed::sqs(), testbed::rabbitmq());
    let missing = format!("{}/000000000000/missing", sqs.endpoint());
    let aws = sqs.env();
    let aws: Vec<(&str, &str)> = aws.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let on_sqs = |left_out: &str| {
        let settings = [
            ("EVENT_SYSTEM", "sqs"),
            ("SQS_QUEUE_URL", missing.as_str()),
            // Nobody is asked for credentials over the network.
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        settings
            .into_iter()
            .chain(aws.iter().copied().filter(|(name, _)| !name.contains(left_out)))
            .collect::<Vec<_>>()
    };
    let wrong_password = vhost.url().replace(":guest@", ":wrong@");
    let wrong_vhost = vhost.url().replace("/test-", "/missing-");
    let rabbitmq = |url| vec![("EVENT_SYSTEM", "rabbitmq"), ("AMQP_URL", url)];
    for (broker, named) in [
        (on_sqs("NOTHING"), "check SQS_QUEUE_URL"),
        (on_sqs("REGION"), "set AWS_REGION"),
        (on_sqs("KEY"), "set AWS_ACCESS_KEY_ID"),
        (rabbitmq(wrong_password.as_str()), "check the user, its password"),
        (rabbitmq(wrong_vhost.as_str()), "check the virtual host"),
    ] {
        let stores = [
            ("DATABASE_URL", world.database.url()),
            ("REDIS_URL", world.redis.url()),
            ("METRICS_ADDR", "127.0.0.1:0"),
        ];
        let said = worker_with(&[&stores[..], &broker[..]].concat(), &["run"]).await;
        assert_eq!(said.code, Some(1), "{named}: {said:?}");
        assert!(said.err.contains(named), "{named}: {said:?}");
        assert_eq!(said.err.trim_end().lines().count(), 1, "{named}: {said:?}");
        assert!(!said.err.contains("wrong@") && !said.out.contains("wrong@"), "{said:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_migrated_is_one_line_that_says_so() {
    let (database, redis) = tokio::join!(testbed::empty_postgres(), testbed::redis());
    let env = [("DATABASE_URL", database.url()), ("REDIS_URL", redis.url())];
    for command in [&["verify"][..], &["replay", "--order", "1"], &["dead-letters", "list"]] {
        let said = worker_with(&env, command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("run `api migrate`"), "{said:?}");
        assert_eq!(said.err.trim_end().lines().count(), 1, "{said:?}");
    }
}

#[tokio::test]
async fn an_sqs_queue_without_a_redrive_policy_is_a_warning_and_not_an_error() {
    let (world, sqs) = tokio::join!(World::new(), testbed::sqs());
    let queues = [(sqs.create_bare_queue("bare").await, true), (sqs.create_queue("right").await, false)];
    for (queue, warns) in queues {
        let (program, address) = world.running();
        let program = program.envs(sqs.env()).env("EVENT_SYSTEM", "sqs").env("SQS_QUEUE_URL", &queue);
        let mut program = program.spawn();
        program.wait_ready(&format!("{address}/health/ready")).await;
        let log = program.log();
        assert_eq!(log.contains("has no redrive policy"), warns, "{queue}: {log}");
        program.terminate().await;
    }
}
