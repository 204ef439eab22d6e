//! The API against real servers, one module per topic.

mod accounts;
mod auth_access;
mod auth_provider;
mod auth_tokens;
mod documents;
mod hardening;
mod health;
mod limits;
mod orders_cache;
mod orders_conditions;
mod orders_create;
mod orders_delete;
mod orders_history;
mod orders_idempotency;
mod orders_list;
mod orders_plans;
mod orders_support;
mod orders_update;
mod problems;
mod support;
