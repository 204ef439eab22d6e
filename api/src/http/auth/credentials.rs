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
};

/// An address and a password.
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
}

impl Credentials {
    /// Reads both fields. `accept` decides which passwords are accepted.
    pub(super) fn parse(
        body: &[u8],
        accept: impl FnOnce(String) -> Result<Password, PasswordParseError>,
    ) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let email = fields.required("email", Value::parsed, &mut errors);
        let password = fields.required("password", |value| parse_password(value, accept), &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { email: email?, password: password? }))
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
