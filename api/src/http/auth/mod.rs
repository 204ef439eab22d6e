//! The routes of accounts and sessions, and the caller that an access token names.
//!
//! What a token, a session or a password is worth is decided in `crate::auth`.

mod caller;
mod error;
pub mod login;
pub mod login_test;
pub mod logout;
pub mod logout_all;
pub mod refresh;
pub mod register;
