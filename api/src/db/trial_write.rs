//! A write that is taken back, to see whether PostgreSQL accepts any.

use sqlx::{Connection as _, PgConnection};

/// Writes an event to the log and takes it back. It is large enough to need a new page of the disk, because what fits into an
/// existing page can be written to a full disk too. It is done only while writes fail, so it leaves little behind.
pub async fn try_to_write(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = db.begin().await?;
    sqlx::query!(
        "INSERT INTO outbox (event_id, event_type, order_id, version, payload)
         SELECT gen_random_uuid(), 'Trial', 0, 0, string_agg(md5(random()::text), '') FROM generate_series(1, 1024)"
    )
    .execute(&mut *transaction)
    .await?;
    transaction.rollback().await
}
