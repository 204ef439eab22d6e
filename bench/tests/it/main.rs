//! The command as a whole, with small numbers.

mod command;
