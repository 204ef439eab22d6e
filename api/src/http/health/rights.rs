//! What the API's database role must be allowed to do.

use shared::platform::schema::Right;

/// Without any of these some request is answered with an error. Dropping and making partitions of `outbox` also needs its
/// owner, but events survive without.
pub const RIGHTS: &[Right] = &[
    ("orders", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("order_lines", &["SELECT", "INSERT", "DELETE"]),
    ("orders_id_seq", &["USAGE"]),
    ("order_lines_id_seq", &["USAGE"]),
    ("idempotency_keys", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("accounts", &["SELECT", "INSERT"]),
    ("local_customer_ids", &["USAGE"]),
    ("session_generations", &["SELECT", "INSERT", "UPDATE"]),
    ("order_history", &["SELECT"]),
    ("outbox", &["SELECT", "INSERT"]),
    ("relay", &["SELECT", "UPDATE"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE"]),
];
