//! The order, its rules and its events, and the clock: pure values that do no input or output.

pub mod clock;
mod cursor;
pub mod digits;
pub mod encoded;
pub mod event;
pub mod order;
pub mod timestamp;
