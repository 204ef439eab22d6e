//! `cargo xtask` as a process of its own, as its users run it.

mod clear_cache;
mod documents;
mod test_needs;
mod tool;
mod up;
mod up_refused;
mod upgrade;
