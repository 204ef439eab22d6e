//! The only SQL of the API.
