//! What the worker's database role must be allowed to do.

use shared::platform::schema::Right;

/// Without any of these some event cannot be handled.
pub const RIGHTS: &[Right] = &[
    ("order_history", &["SELECT", "INSERT"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE"]),
    ("cache_debts", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("orders", &["SELECT"]),
    ("order_lines", &["SELECT"]),
];
