//! The body of `register` and `login`.

use utoipa::ToSchema;

use crate::{
    auth::{
        Email,
        passwords::{Password, PasswordParseError},
    },
    http::{
        error::{ApiError, FieldError},
        extract::{FieldErrors, Object, Value, field_code},
    },
    tenants::is_slug,
};

/// An address and a password, in one tenant.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "correct horse"}))]
pub(super) struct Credentials {
    /// Compared without regard to case.
    #[schema(value_type = String, pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$", max_length = 254)]
    pub(super) email: Email,
    /// Any characters but control characters. A new one must not be common, nor made of the address (`too_weak`). Compared
    /// as RFC 8265 says (`OpaqueString`).
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    pub(super) password: Password,
    /// The slug of the tenant; the default one if it is left out. Addresses are unique within a tenant.
    #[schema(value_type = Option<String>, nullable = false, max_length = 40, pattern = "^[a-z0-9-]*[a-z][a-z0-9-]*$", example = "my-shop")]
    pub(super) tenant: Option<String>,
}

impl Credentials {
    /// Reads all fields. `accept` decides which passwords are accepted.
    pub(super) fn parse(
        body: &[u8],
        accept: impl FnOnce(String) -> Result<Password, PasswordParseError>,
    ) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let email = fields.required("email", Value::parsed, &mut errors);
        let password = fields.required("password", |value| parse_password(value, accept), &mut errors);
        let tenant = fields.optional("tenant", parse_slug, &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { email: email?, password: password?, tenant: tenant? }))
    }
}

/// Reads the slug of a tenant, whether or not there is one.
pub(in crate::http) fn parse_slug(value: &Value<'_>) -> Result<String, FieldError> {
    let slug = value.string()?;
    if is_slug(&slug) {
        Ok(slug.into_owned())
    } else {
        Err(value.error(
            field_code::INVALID_VALUE,
            "must be a slug: 1 to 40 of a-z, 0-9 and -, with at least one letter",
        ))
    }
}

fn parse_password(
    value: &Value<'_>,
    accept: impl FnOnce(String) -> Result<Password, PasswordParseError>,
) -> Result<Password, FieldError> {
    accept(value.string()?.into_owned()).map_err(|error| {
        let code = match error {
            PasswordParseError::Length => field_code::INVALID_LENGTH,
            PasswordParseError::Characters => field_code::INVALID_VALUE,
        };
        value.error(code, error.to_string())
    })
}
