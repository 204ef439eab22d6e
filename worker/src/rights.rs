//! The rights that the worker's database role needs.

use shared::platform::schema::Right;

/// If one of these is missing, some events cannot be handled.
pub const RIGHTS: &[Right] = &[
    ("order_history", &["SELECT", "INSERT"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE"]),
    ("cache_debts", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("orders", &["SELECT"]),
    ("order_lines", &["SELECT"]),
    ("tenants", &["SELECT"]),
];
