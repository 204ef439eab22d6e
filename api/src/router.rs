//! All routes on one screen.
