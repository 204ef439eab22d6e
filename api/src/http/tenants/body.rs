//! The bodies of requests that create and change tenants.

use std::borrow::Cow;

use serde::Serialize;
use shared::platform::db::{DbConnection, DbPool};
use utoipa::ToSchema;

use crate::{
    db::{self, TenantSettings},
    http::{
        auth::parse_slug,
        error::{ApiError, FieldError},
        extract::{FieldErrors, Object, Value, field_code, parse_trimmed_text},
    },
    limits::Quota,
};

/// The longest name, in characters.
const MAX_NAME: usize = 100;
/// The time zone of a tenant that names none.
const UTC: &str = "UTC";

/// A new tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"slug": "my-shop", "name": "My shop", "timezone": "Europe/Berlin", "rate_limit": "1000/60s"}))]
pub(super) struct NewTenant {
    /// What logins name it by. No other tenant has it. It has a letter, so that it is no number of a tenant.
    #[schema(max_length = 40, pattern = "^[a-z0-9-]*[a-z][a-z0-9-]*$")]
    slug: String,
    /// Its name: any characters but control characters, no white space at either end.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
    name: String,
    /// An IANA name that PostgreSQL knows.
    #[schema(nullable = false, default = "UTC", example = "Europe/Berlin")]
    timezone: Option<String>,
    /// The quota of all requests of its callers together, but for operators, as requests and seconds; `null` is no limit.
    #[schema(
        pattern = "^([1-9][0-9]{0,5}|1000000)/([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s$",
        example = "1000/60s"
    )]
    rate_limit: Option<String>,
    /// Whether its callers get 403 (`tenant_suspended`).
    #[schema(nullable = false, default = false)]
    suspended: Option<bool>,
}

/// What changes of a tenant. What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "My shop", "rate_limit": "1000/60s"}))]
pub(super) struct TenantUpdate {
    /// What logins name it by. No other tenant has it. It has a letter, so that it is no number of a tenant.
    #[schema(nullable = false, max_length = 40, pattern = "^[a-z0-9-]*[a-z][a-z0-9-]*$")]
    slug: Option<String>,
    /// Its name: any characters but control characters, no white space at either end.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
    name: Option<String>,
    /// An IANA name that PostgreSQL knows.
    #[schema(nullable = false, example = "Europe/Berlin")]
    timezone: Option<String>,
    /// The quota of all requests of its callers together, but for operators, as requests and seconds; `null` removes it.
    #[schema(value_type = Option<String>, pattern = "^([1-9][0-9]{0,5}|1000000)/([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s$", example = "1000/60s")]
    #[expect(clippy::option_option, reason = "left out, null and a quota are three things")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<Option<String>>,
    /// Whether its callers get 403 (`tenant_suspended`). The default tenant cannot be suspended.
    #[schema(nullable = false)]
    suspended: Option<bool>,
}

impl TenantUpdate {
    /// Reads the fields. Collects the errors of all, also that PostgreSQL does not know the time zone.
    async fn read(
        fields: &mut Object<'_>,
        pool: &DbPool,
        errors: &mut FieldErrors,
    ) -> Result<Option<Self>, ApiError> {
        let slug = fields.optional("slug", parse_slug, errors);
        let name = fields.optional("name", parse_name, errors);
        let timezone = fields.optional("timezone", |value| value.string().map(Cow::into_owned), errors);
        let rate_limit = fields.optional("rate_limit", parse_rate_limit, errors);
        let suspended = fields.optional("suspended", Value::boolean, errors);
        if let Some(Some(name)) = &timezone {
            check_time_zone(name, pool, errors).await?;
        }
        let read = || {
            Some(Self {
                slug: slug?,
                name: name?,
                timezone: timezone?,
                rate_limit: rate_limit?,
                suspended: suspended?,
            })
        };
        Ok(read())
    }

    /// Reads the body of a change.
    pub(super) async fn parse(body: &[u8], pool: &DbPool) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let update = Self::read(&mut fields, pool, &mut errors).await?;
        fields.reject_unknown(&mut errors);
        errors.into_result(|| update)
    }

    /// The settings with what changes of them.
    pub(super) fn apply(&self, settings: TenantSettings) -> TenantSettings {
        let Self { slug, name, timezone, rate_limit, suspended } = self.clone();
        TenantSettings {
            slug: slug.unwrap_or(settings.slug),
            name: name.unwrap_or(settings.name),
            timezone: timezone.unwrap_or(settings.timezone),
            rate_limit: rate_limit.unwrap_or(settings.rate_limit),
            suspended: suspended.unwrap_or(settings.suspended),
        }
    }
}

/// Reads the body of a creation.
pub(super) async fn parse_new_tenant(body: &[u8], pool: &DbPool) -> Result<TenantSettings, ApiError> {
    let mut errors = FieldErrors::new();
    let mut fields = Object::parse(body)?;
    let given = TenantUpdate::read(&mut fields, pool, &mut errors).await?;
    for required in ["slug", "name"] {
        fields.required_value(required, &mut errors);
    }
    fields.reject_unknown(&mut errors);
    errors.into_result(|| {
        let TenantUpdate { slug, name, timezone, rate_limit, suspended } = given?;
        Some(TenantSettings {
            slug: slug?,
            name: name?,
            timezone: timezone.unwrap_or_else(|| UTC.to_owned()),
            rate_limit: rate_limit.flatten(),
            suspended: suspended.unwrap_or(false),
        })
    })
}

fn parse_name(value: &Value<'_>) -> Result<String, FieldError> {
    let name = value.string()?;
    parse_trimmed_text(&name, 1..=MAX_NAME).map_err(|(code, detail)| value.error(code, detail))
}

fn parse_rate_limit(value: &Value<'_>) -> Result<Option<String>, FieldError> {
    if value.json() == "null" {
        return Ok(None);
    }
    // Written again, so that equal quotas are equal texts.
    Ok(Some(value.parsed::<Quota>()?.to_string()))
}

/// Collects an error if PostgreSQL does not know the time zone.
async fn check_time_zone(name: &str, pool: &DbPool, errors: &mut FieldErrors) -> Result<(), ApiError> {
    // No name has another character, and a text of PostgreSQL cannot have U+0000.
    let can_be_one = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    let is_known = can_be_one
        && pool
            .read_with_retry(|mut db: DbConnection| async move { db::is_time_zone(&mut db, name).await })
            .await?;
    if !is_known {
        let detail = "must be the IANA name of a time zone, such as Europe/Berlin";
        errors.push(FieldError::new("/timezone", field_code::INVALID_VALUE, detail));
    }
    Ok(())
}
