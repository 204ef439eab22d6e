//! The query string, read parameter by parameter like a body.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use percent_encoding::percent_decode_str;

use super::{FieldErrors, field_code, value::range_detail};
use crate::http::error::{ApiError, FieldError};

/// The parameters of a request. Parameters that are never read are unknown.
#[derive(Debug)]
pub struct Query<'a>(Vec<Parameter<'a>>);

#[derive(Debug)]
struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    is_utf8: bool,
    is_read: bool,
}

impl<'a> Query<'a> {
    /// Splits and decodes a query string, as `Uri::query` returns it.
    pub fn parse(query: Option<&'a str>) -> Self {
        let pairs = query.unwrap_or_default().split('&');
        let parameters = pairs.filter_map(|pair| {
            // It puts U+FFFD in the place of bytes that are no UTF-8, so these are noticed before.
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            let is_utf8 = percent_decode_str(pair).decode_utf8().is_ok();
            Some(Parameter { name, value, is_utf8, is_read: false })
        });
        Self(parameters.collect())
    }

    /// Fails with 422 if there is any parameter: for routes that have none.
    pub fn reject_all(query: Option<&'a str>) -> Result<(), ApiError> {
        if query.is_none_or(str::is_empty) {
            return Ok(());
        }
        let mut errors = FieldErrors::new();
        Self::parse(query).reject_unknown(&mut errors);
        errors.into_result(|| Some(()))
    }

    /// Whether the parameter is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|parameter| parameter.name == name)
    }

    /// Reads a parameter, if it is given. `read` fails with an error's code and detail.
    /// Returns `None` if the parameter is missing, or invalid; then an error was collected.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, (&'static str, String)>,
        errors: &mut FieldErrors,
    ) -> Option<T> {
        let parameter = self.0.iter_mut().find(|parameter| parameter.name == name)?;
        parameter.is_read = true;
        let valid = if parameter.is_utf8 {
            read(&parameter.value)
        } else {
            Err((field_code::INVALID_VALUE, "must be UTF-8".to_owned()))
        };
        match valid {
            Ok(value) => Some(value),
            Err((code, detail)) => {
                errors.push(FieldError::new(format!("?{name}"), code, detail));
                None
            }
        }
    }

    /// Reads a parameter as a `T`, whose parse error says what it must be.
    pub fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        errors: &mut FieldErrors,
    ) -> Option<T> {
        self.optional(
            name,
            |text| text.parse().map_err(|error: T::Err| (field_code::INVALID_VALUE, error.to_string())),
            errors,
        )
    }

    /// Reads a whole number within bounds.
    pub fn integer(
        &mut self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        errors: &mut FieldErrors,
    ) -> Option<i64> {
        let read = |text: &str| {
            // `i64` would accept a leading plus, which JSON does not have.
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err((field_code::INVALID_TYPE, "must be an integer".to_owned()));
            }
            text.parse()
                .ok()
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| (field_code::OUT_OF_RANGE, range_detail(&bounds)))
        };
        self.optional(name, read, errors)
    }

    /// Collects an error for each parameter that was not read: unknown ones, and repeated ones.
    pub fn reject_unknown(self, errors: &mut FieldErrors) {
        for (index, parameter) in self.0.iter().enumerate() {
            let pointer = || format!("?{}", parameter.name);
            if self.0[..index].iter().any(|other| other.name == parameter.name) {
                errors.push(FieldError::new(
                    pointer(),
                    field_code::DUPLICATE_FIELD,
                    "is given more than once",
                ));
            } else if !parameter.is_read {
                errors.push(FieldError::new(
                    pointer(),
                    field_code::UNKNOWN_FIELD,
                    "there is no such parameter here",
                ));
            }
            if errors.are_full() {
                return;
            }
        }
    }
}
