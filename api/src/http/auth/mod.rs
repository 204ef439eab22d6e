//! The routes of accounts and sessions, and the caller that an access token names.
//!
//! How tokens, sessions and passwords are checked is in `crate::auth`.

mod caller;
mod credentials;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod login;
pub mod login_test;
pub mod logout;
pub mod logout_all;
pub mod refresh;
pub mod register;
mod route_actions;
mod tenant;
mod token_pair;

pub(super) use caller::{X_TENANT_ID, admit_caller, bearer_token};
pub(super) use credentials::parse_slug;
pub(super) use route_actions::action_of;
