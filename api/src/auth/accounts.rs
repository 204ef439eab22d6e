//! The SQL of accounts.

use shared::order::CustomerId;
use sqlx::PgPool;

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
pub(super) async fn create(db: &PgPool, email: &Email, password_hash: &str) -> Result<Created, ApiError> {
    let created = sqlx::query_scalar!(
        "INSERT INTO accounts (email, password_hash) VALUES ($1, $2) RETURNING customer_id",
        email.as_str(),
        password_hash
    )
    .fetch_one(db)
    .await;
    match created {
        Ok(id) => Ok(Created::Account(id.try_into().map_err(ApiError::internal)?)),
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("accounts_email_unique") => {
            Ok(Created::EmailTaken)
        }
        Err(error) => Err(error.into()),
    }
}

/// The account with this address.
pub(super) async fn find(db: &PgPool, email: &Email) -> Result<Option<Account>, ApiError> {
    let row = sqlx::query!(
        "SELECT customer_id, password_hash, role FROM accounts WHERE email = $1",
        email.as_str()
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let customer_id = row.customer_id.try_into().map_err(ApiError::internal)?;
        let role: Role = row.role.parse().map_err(|error: &str| ApiError::internal(error))?;
        Ok(Account { caller: Caller { customer_id, role }, password_hash: row.password_hash })
    })
    .transpose()
}
