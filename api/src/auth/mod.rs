//! Who is calling, and how they prove it.

mod caller;
mod config;

pub use caller::{Caller, Role};
pub use config::AuthConfig;

/// Tokens and sessions.
pub struct Auth;
