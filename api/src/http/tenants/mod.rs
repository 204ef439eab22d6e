//! The routes by which operators manage tenants.
//!
//! Who is let in, tenant by tenant, is in `crate::tenants`; SQL is in `crate::db`.

mod body;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
mod path;
pub mod update;
mod write;
