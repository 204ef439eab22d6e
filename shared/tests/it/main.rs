//! What is shared, against real servers.

mod cache;
mod db;
