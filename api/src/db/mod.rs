//! The SQL of orders and of their log: functions that take a connection and return what happened.
//!
//! What an order can do is decided in `crate::orders`; connections and repeated attempts are `shared::platform::db`.

mod change;
mod columns;
mod create;
mod decode;
mod deletions;
mod history;
mod idempotency;
mod ids;
mod list;
mod log;
mod read;
mod replication;
mod tenants;
mod trial_write;

pub use change::{ChangeOutcome, ChangedOrder, change_orders, lock_order};
pub use create::{
    CreatedOrder, NotCreated, REFERENCE_UNIQUE, TogetherOutcome, insert_orders, insert_orders_together,
};
pub use deletions::{Deletion, load_deletions};
pub use history::{HistoryEntry, HistoryPage, load_history};
pub use idempotency::{
    IdempotencyClaim, KeyedResponse, StoredResponse, delete_expired_responses, load_responses,
    store_responses,
};
pub use ids::{ReservedIds, reserve_ids};
pub use list::{
    ListPosition, MAX_SCANNED, MAX_TOTAL, OrderFilter, OrderPage, PageStart, count_query, load_order_page,
    load_orders_after, page_query,
};
pub use log::{
    LogEra, LogPage, LogRow, LogSpan, LogTip, last_dropped_position, load_log_eras, load_log_page,
};
pub use read::{ORDERS_BY_KEY, load_orders};
pub use replication::{ReplicationState, load_replication_state};
pub use tenants::{
    Tenant, TenantRemoval, TenantRow, TenantSettings, TenantWrite, begin_removal, find_tenant, insert_tenant,
    is_time_zone, load_tenant, load_tenant_rows, load_tenants, update_tenant,
};
pub use trial_write::try_to_write;
