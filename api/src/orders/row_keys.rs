//! The key of a request whose rows have keys of their own.

use shared::platform::db::{DbConnection, DbPool};

use super::error::OrderError;
use crate::db::{self, IdempotencyClaim, StoredResponse};

/// What stands under the key itself: it is never sent.
const MARK: StoredResponse = StoredResponse { status: 200, headers: Vec::new(), body: bytes::Bytes::new() };

/// Takes the key of a request for its rows, unless a request of another kind has used it. From then on a request of another kind
/// is refused, which would place the same orders once more.
pub(crate) async fn claim_for_rows(db: &DbPool, claim: &IdempotencyClaim) -> Result<(), OrderError> {
    let name = [(claim.caller, claim.key.as_str())];
    // Can be repeated: it finds what an attempt before it has written.
    let work = |mut db: DbConnection| async move {
        if !db::store_responses(&mut db, &[(claim, &MARK)]).await?.is_empty() {
            return Ok(None);
        }
        Ok(db::load_responses(&mut db, &name).await?.into_values().next())
    };
    match db.read_with_retry(work).await {
        Ok(Some(held)) if held.request_hash != claim.request_hash => Err(OrderError::KeyReused),
        Ok(_) => Ok(()),
        Err(error) if error.waited_for_row_of("idempotency_keys") => Err(OrderError::KeyInProgress),
        Err(error) => Err(error.into()),
    }
}
