//! The API against real servers, one module per topic.

mod accounts;
mod auth_access;
mod auth_provider;
mod auth_tokens;
mod documents;
mod hardening;
mod health;
mod limits;
mod orders_create;
mod orders_support;
mod problems;
mod support;
