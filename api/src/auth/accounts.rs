//! The SQL of accounts.

use shared::{
    db::{DbConnection, DbPool, WriteError},
    order::CustomerId,
};

use super::{Caller, Email, Role};
use crate::error::ApiError;

/// What became of a new account.
pub(super) enum Created {
    /// It is there.
    Account(CustomerId),
    /// Another one has this address.
    EmailTaken,
}

/// An account as a login needs it.
pub(super) struct Account {
    pub(super) caller: Caller,
    pub(super) password_hash: String,
}

/// Adds an account.
pub(super) async fn create(db: &DbPool, email: &Email, password_hash: &str) -> Result<Created, ApiError> {
    let insert = |mut db: DbConnection| async move {
        sqlx::query_scalar!(
            "INSERT INTO accounts (email, password_hash) VALUES ($1, $2) RETURNING customer_id",
            email.as_str(),
            password_hash
        )
        .fetch_one(&mut *db)
        .await
    };
    match db.write(false, insert).await {
        Ok((id, _)) => Ok(Created::Account(id.try_into().map_err(ApiError::internal)?)),
        Err(WriteError { error, in_doubt }) if error.violates("accounts_email_unique") => {
            // The salted hash is this request's own: an earlier attempt, whose answer was lost, has made the account.
            match find(db, email).await? {
                Some(account) if in_doubt && account.password_hash == password_hash => {
                    Ok(Created::Account(account.caller.customer_id))
                }
                _ => Ok(Created::EmailTaken),
            }
        }
        Err(WriteError { error, .. }) => Err(error.into()),
    }
}

/// The account with this address.
pub(super) async fn find(db: &DbPool, email: &Email) -> Result<Option<Account>, ApiError> {
    let select = |mut db: DbConnection| async move {
        sqlx::query!("SELECT customer_id, password_hash, role FROM accounts WHERE email = $1", email.as_str())
            .fetch_optional(&mut *db)
            .await
    };
    let row = db.read(select).await?;
    row.map(|row| {
        let customer_id = row.customer_id.try_into().map_err(ApiError::internal)?;
        let role: Role = row.role.parse().map_err(|error: &str| ApiError::internal(error))?;
        Ok(Account { caller: Caller { customer_id, role }, password_hash: row.password_hash })
    })
    .transpose()
}
