//! What stands around every handler.
