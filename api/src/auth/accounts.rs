//! The SQL of accounts and of ending sessions.

use shared::{
    domain::{order::CustomerId, tenant::TenantId},
    platform::db::{DbConnection, DbPool, WriteError},
};
use time::OffsetDateTime;

use super::{AuthError, Caller, Email, Role};

/// The customer ids of accounts beside an external identity provider, from the sequence `local_customer_ids`: 2^52 to
/// 2^53 - 1. A token of the provider that names one of them is refused.
pub(crate) const LOCAL_IDS: std::ops::RangeInclusive<i64> = (1 << 52)..=(1 << 53) - 1;

/// The result of creating an account.
pub(crate) enum AccountCreation {
    /// The account was created for this customer.
    Created(CustomerId),
    /// Another account of the tenant has this address.
    EmailTaken,
    /// The tenant was removed meanwhile.
    NoTenant,
}

/// What a login needs of an account.
pub(crate) struct Account {
    pub(crate) caller: Caller,
    pub(crate) password_hash: String,
    /// The generation of its next session.
    pub(crate) generation: i64,
}

/// What decides whether the sessions of a customer go on, and with which role.
pub(crate) struct CustomerStatus {
    /// The role of its account; `None` if there is no account.
    pub(crate) role: Option<Role>,
    /// Sessions of other generations are over.
    pub(crate) generation: i64,
    /// When all sessions of the customer were last ended.
    pub(crate) sessions_ended_at: Option<OffsetDateTime>,
}

/// Creates an account in a tenant. `beside_provider` takes its customer id from [`LOCAL_IDS`].
pub(crate) async fn create_account(
    db: &DbPool,
    tenant: TenantId,
    email: &Email,
    password_hash: &str,
    beside_provider: bool,
) -> Result<AccountCreation, AuthError> {
    // The lock makes the beginning of a removal wait, so that no account is created after it.
    let insert = |mut db: DbConnection| async move {
        if beside_provider {
            sqlx::query_scalar!(
                "INSERT INTO accounts (customer_id, tenant_id, email, password_hash)
                 SELECT nextval('local_customer_ids'), id, $2, $3
                 FROM (SELECT id FROM tenants WHERE id = $1 AND removal_began_at IS NULL FOR SHARE) AS open
                 RETURNING customer_id",
                tenant.get(),
                email.as_str(),
                password_hash
            )
            .fetch_optional(&mut *db)
            .await
        } else {
            sqlx::query_scalar!(
                "INSERT INTO accounts (tenant_id, email, password_hash)
                 SELECT id, $2, $3
                 FROM (SELECT id FROM tenants WHERE id = $1 AND removal_began_at IS NULL FOR SHARE) AS open
                 RETURNING customer_id",
                tenant.get(),
                email.as_str(),
                password_hash
            )
            .fetch_optional(&mut *db)
            .await
        }
    };
    match db.write_with_retry(false, insert).await {
        Ok((Some(id), _)) => Ok(AccountCreation::Created(id.try_into().map_err(AuthError::internal)?)),
        Ok((None, _)) => Ok(AccountCreation::NoTenant),
        Err(WriteError { error, in_doubt }) if error.violates("accounts_email_unique") => {
            // The salted hash belongs to this request: an earlier attempt has made the account, and its result was lost.
            match find_account(db, Some(tenant), email).await? {
                Some(account) if in_doubt && account.password_hash == password_hash => {
                    Ok(AccountCreation::Created(account.caller.customer_id))
                }
                _ => Ok(AccountCreation::EmailTaken),
            }
        }
        Err(WriteError { error, .. }) => Err(error.into()),
    }
}

/// Returns the account of a tenant with this address. There is none if there is no tenant, which takes the same time.
pub(crate) async fn find_account(
    db: &DbPool,
    tenant: Option<TenantId>,
    email: &Email,
) -> Result<Option<Account>, AuthError> {
    let tenant = tenant.map(TenantId::get);
    let select = |mut db: DbConnection| async move {
        sqlx::query!(
            r#"SELECT tenant_id AS "tenant_id!", customer_id AS "customer_id!", password_hash AS "password_hash!", role AS "role!",
                      coalesce(generation, 0) AS "generation!"
               FROM accounts LEFT JOIN ended_sessions USING (tenant_id, customer_id)
               WHERE tenant_id = $1 AND email = $2"#,
            tenant,
            email.as_str()
        )
        .fetch_optional(&mut *db)
        .await
    };
    let row = db.read_with_retry(select).await?;
    row.map(|row| {
        let customer_id = row.customer_id.try_into().map_err(AuthError::internal)?;
        let tenant = row.tenant_id.try_into().map_err(AuthError::internal)?;
        Ok(Account {
            caller: Caller::at_home(tenant, customer_id, parse_role(&row.role)?),
            password_hash: row.password_hash,
            generation: row.generation,
        })
    })
    .transpose()
}

/// Reads the status of a customer of a tenant.
pub(crate) async fn load_status(
    db: &DbPool,
    tenant: TenantId,
    customer: CustomerId,
) -> Result<CustomerStatus, AuthError> {
    let select = |mut db: DbConnection| async move {
        sqlx::query!(
            "SELECT (SELECT role FROM accounts WHERE tenant_id = $1 AND customer_id = $2) AS role,
                    (SELECT generation FROM ended_sessions WHERE tenant_id = $1 AND customer_id = $2) AS generation,
                    (SELECT ended_at FROM ended_sessions WHERE tenant_id = $1 AND customer_id = $2) AS ended_at",
            tenant.get(),
            customer.get()
        )
        .fetch_one(&mut *db)
        .await
    };
    let row = db.read_with_retry(select).await?;
    Ok(CustomerStatus {
        role: row.role.as_deref().map(parse_role).transpose()?,
        generation: row.generation.unwrap_or(0),
        sessions_ended_at: row.ended_at,
    })
}

/// Ends every session of a customer of a tenant. Ending them twice does no harm.
pub(crate) async fn end_sessions(
    db: &DbPool,
    tenant: TenantId,
    customer: CustomerId,
    now: OffsetDateTime,
) -> Result<(), AuthError> {
    let upsert = |mut db: DbConnection| async move {
        sqlx::query!(
            "INSERT INTO ended_sessions AS current (tenant_id, customer_id, generation, ended_at)
             SELECT id, $2, 1, $3 FROM tenants WHERE id = $1 AND removal_began_at IS NULL
             ON CONFLICT (tenant_id, customer_id) DO UPDATE
             SET generation = current.generation + 1, ended_at = greatest(current.ended_at, excluded.ended_at)",
            tenant.get(),
            customer.get(),
            now
        )
        .execute(&mut *db)
        .await
    };
    db.write_with_retry(false, upsert).await.map_err(|failed| failed.error)?;
    Ok(())
}

fn parse_role(text: &str) -> Result<Role, AuthError> {
    text.parse().map_err(|error: &str| AuthError::internal(error))
}
