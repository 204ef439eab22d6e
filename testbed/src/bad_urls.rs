//! Addresses that no program may accept as a setting. Each holds [`SECRET`], which no message may show.

/// The password in every bad address.
pub const SECRET: &str = "hunter2";

/// Of a PostgreSQL.
pub const POSTGRES: &[&str] = &[
    "hunter2",
    "mysql://u:hunter2@host/db",
    "postgres:/u:hunter2@host/db",
    "postgres://u:hunter2@host:port/db",
    "postgres://u:hunter2@host:0/db",
    "postgres://u:hunter2@host:70000/db",
    "postgres://u:hunter2@host:-1/db",
    "postgres://u:hunter2/hunter2@host:5432/db",
    "postgres://u:hunter2@/db",
    "postgres://u:hunter2@[::1/db",
    "postgres://u:hunter2@[::g]:5432/db",
    "postgres://u:hunter2@256.0.0.1/db",
    "postgres://u:hunter2@1.2.3/db",
    "postgres://u:hunter2@a..b/db",
    "postgres://u:hunter2@-host/db",
    "postgres://u:hunter2@ho st/db",
    "postgres://u:hunter2@host/db/other",
    "postgres://u:hunter2@host/db#hunter2",
    "postgres://u:hunter2%ff@host/db",
    "postgres://u%00:hunter2@host/db",
    "postgres://u:hunter2@host/db?sslmode=hunter2",
    "postgres://u:hunter2@host/db?sslmode=",
    "postgres://u:hunter2@host/db?sslmod=verify-full",
    "postgres://u:hunter2@host/db?sslmode=verify-full&sslrootcert=/hunter2.pem",
    "postgres://u:hunter2@host/db?port=0",
    "postgres://u:hunter2@host/db?port=hunter2",
    "postgres://u:hunter2@host/db?host=a..b",
    "postgres://u:hunter2@host/db?hostaddr=host",
    "postgres://u:hunter2@host/db?statement-cache-capacity=many",
];

/// Of a Redis.
pub const REDIS: &[&str] = &[
    "hunter2",
    "http://:hunter2@host:6379",
    "redis:///0?pass=hunter2",
    "redis://:hunter2@:6379/0",
    "redis://:hunter2@host:port/0",
    "redis://:hunter2@host:0/0",
    "redis://:hunter2@host:65536/0",
    "redis://:hunter2@0.0.0.0:6379/0",
    "redis://:hunter2@[::]:6379/0",
    "redis://:hunter2@[::1:6379/0",
    "redis://:hunter2@300.1.1.1/0",
    "redis://:hunter2@ho_st!/0",
    "redis://:hunter2@host/first",
    "redis://:hunter2@host/-1",
    "redis://:hunter2@host/99999999999",
    "redis://:hunter2@host/0/1",
    "redis://:hunter2@host/0#hunter2",
    "rediss://:hunter2@host/0#hunter2",
    "redis://:hunter2%ff@host/0",
    "redis://:hunter2@host/0?protocol=hunter2",
    "redis://:hunter2@host/0?db=1",
];

/// Of a RabbitMQ.
pub const AMQP: &[&str] = &[
    "hunter2",
    "amqp:u:hunter2@host",
    "rabbitmq://u:hunter2@host/%2f",
    "amqp:///%2f?password=hunter2",
    "amqp://u:hunter2@:5672/%2f",
    "amqp://u:hunter2@host:port/%2f",
    "amqp://u:hunter2@host:0/%2f",
    "amqp://u:hunter2@host:65536/%2f",
    "amqp://u:hunter2@1.2.3.4.5/%2f",
    "amqp://u:hunter2@ho%20st/%2f",
    "amqp://u:hunter2@host/",
    "amqp://u:hunter2@host/a/b",
    "amqp://u:hunter2@host/%ff",
    "amqp://u:hunter2@host/%2f#hunter2",
    "amqp://u:hunter2@host/%2f?heartbeat=hunter2",
    "amqp://u:hunter2@host/%2f?heartbeat=70000",
    "amqp://u:hunter2@host/%2f?auth_mechanism=hunter2",
    "amqp://u:hunter2@host/%2f?verify=verify_none",
];

/// Of a web service: SQS, an identity provider, a collector.
pub const HTTP: &[&str] = &[
    "hunter2",
    "host/hunter2",
    "ftp://u:hunter2@host/queue",
    "http:/host/hunter2",
    "https:///hunter2",
    "http://:hunter2@/queue",
    "http://u:hunter2@host:port/queue",
    "http://u:hunter2@host:0/queue",
    "http://u:hunter2@host:65536/queue",
    "http://u:hunter2@256.0.0.1/queue",
    "http://u:hunter2@[::1/queue",
    "http://u:hunter2@a..b/queue",
    "http://u:hunter2@host/que ue",
    "http://u:hunter2@host/queue#hunter2",
];
