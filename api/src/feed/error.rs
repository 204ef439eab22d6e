//! Why the feed cannot be read.

use std::sync::Arc;

use shared::platform::db::DbError;

/// Why the feed cannot be read from a cursor.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FeedError {
    /// The text is no cursor of ours, or one of another caller's feed.
    #[error("the cursor was not given out for this feed")]
    BadCursor,
    /// The cursor is behind the retention, or ahead of the log, or of a log that has gone on differently since.
    #[error("the events after this cursor are not retained")]
    Expired {
        /// The last position after it whose event is known to be missing.
        missing: Option<i64>,
    },
    /// The log was replaced while it was read. The reader's last cursor says whether it can go on.
    #[error("the log was replaced by another copy while it was read")]
    Replaced,
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] Arc<DbError>),
}

impl From<DbError> for FeedError {
    fn from(error: DbError) -> Self {
        Self::Database(Arc::new(error))
    }
}
