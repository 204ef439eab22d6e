//! Models of the parts whose faults are rare interleavings: the log and the cache.
//!
//! A model has a state, the steps that can happen next, and properties. [stateright](https://docs.rs/stateright) visits every
//! state that any order of the steps can reach and reports the shortest path to one that breaks a property. So a test of
//! a model covers all interleavings of a small system, where a test on real servers covers a few of a large one.
//!
//! Each design is a value: the one that is built, and the simpler ones that are wrong. The tests explore the first without
//! finding anything, and compare what is found in each of the others with the story that is told about it.
//!
//! Only `always` and `sometimes` are used: stateright's `eventually` overlooks cycles. That nothing stalls is therefore put as
//! "what a step could see, it has handled".

pub mod cache;
pub mod log;
pub mod set;

/// For tests that let the real thing take the steps of a model.
pub use stateright::Model;
