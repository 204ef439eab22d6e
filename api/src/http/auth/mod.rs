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
mod token_pair;

pub(super) use caller::{admit_caller, bearer_token};
