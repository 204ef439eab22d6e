//! The rights that the API's database role needs.

use shared::platform::schema::Right;

/// Without any of these some requests fail. Making and dropping partitions of `outbox` also needs its owner, but no event is
/// lost without it.
pub const RIGHTS: &[Right] = &[
    ("orders", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("order_lines", &["SELECT", "INSERT", "DELETE"]),
    ("orders_id_seq", &["USAGE"]),
    ("order_lines_id_seq", &["USAGE"]),
    ("idempotency_keys", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("accounts", &["SELECT", "INSERT"]),
    ("local_customer_ids", &["USAGE"]),
    ("tenants", &["SELECT", "INSERT", "UPDATE"]),
    ("ended_sessions", &["SELECT", "INSERT", "UPDATE"]),
    // A trigger keeps it, for the version before.
    ("session_generations", &["SELECT", "INSERT", "UPDATE"]),
    ("order_history", &["SELECT"]),
    ("outbox", &["SELECT", "INSERT"]),
    ("log_pages", &["SELECT", "INSERT"]),
    ("log_eras", &["SELECT", "INSERT"]),
    ("relay", &["SELECT", "UPDATE"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE"]),
];
