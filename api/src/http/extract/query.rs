//! The query string, read parameter by parameter like a body.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use super::{FieldErrors, fault};
use crate::http::error::{ApiError, FieldError};

/// The parameters of a request; what nobody took in the end is unknown.
#[derive(Debug)]
pub struct Query<'a>(Vec<Parameter<'a>>);

#[derive(Debug)]
struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    seen: bool,
}

impl<'a> Query<'a> {
    /// Splits and decodes a query string, as `Uri::query` gives it.
    pub fn parse(query: Option<&'a str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(name, value)| Parameter { name, value, seen: false }).collect())
    }

    /// Refuses every parameter: for routes that have none.
    pub fn none(query: Option<&'a str>) -> Result<(), ApiError> {
        if query.is_none_or(str::is_empty) {
            return Ok(());
        }
        let mut faults = FieldErrors::new();
        Self::parse(query).reject_unknown(&mut faults);
        faults.into_result(|| Some(()))
    }

    /// Whether the parameter is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|parameter| parameter.name == name)
    }

    /// Takes a parameter, where it is given. `read` answers a fault's code and detail for what it cannot read.
    /// `None` also where it is faulty; then a fault was collected.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, (&'static str, String)>,
        faults: &mut FieldErrors,
    ) -> Option<T> {
        let parameter = self.0.iter_mut().find(|parameter| parameter.name == name)?;
        parameter.seen = true;
        match read(&parameter.value) {
            Ok(value) => Some(value),
            Err((code, detail)) => {
                faults.push(FieldError::new(format!("?{name}"), code, detail));
                None
            }
        }
    }

    /// Takes a parameter that reads as a `T`, whose error says what it must be.
    pub fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        faults: &mut FieldErrors,
    ) -> Option<T> {
        self.optional(
            name,
            |text| text.parse().map_err(|error: T::Err| (fault::INVALID_VALUE, error.to_string())),
            faults,
        )
    }

    /// Takes a whole number within bounds.
    pub fn integer(
        &mut self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        faults: &mut FieldErrors,
    ) -> Option<i64> {
        let read = |text: &str| {
            // `i64` would take a leading plus, which JSON and this contract do not know.
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err((fault::INVALID_TYPE, "must be an integer".to_owned()));
            }
            text.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
                let detail = if *bounds.end() == i64::MAX {
                    format!("must be at least {} and fit 64 bits", bounds.start())
                } else {
                    format!("must be between {} and {}", bounds.start(), bounds.end())
                };
                (fault::OUT_OF_RANGE, detail)
            })
        };
        self.optional(name, read, faults)
    }

    /// Collects the parameters that nobody took: unknown ones, and second ones of the same name.
    pub fn reject_unknown(self, faults: &mut FieldErrors) {
        for (index, parameter) in self.0.iter().enumerate() {
            let pointer = || format!("?{}", parameter.name);
            if self.0[..index].iter().any(|other| other.name == parameter.name) {
                faults.push(FieldError::new(pointer(), fault::DUPLICATE_FIELD, "is given more than once"));
            } else if !parameter.seen {
                faults.push(FieldError::new(
                    pointer(),
                    fault::UNKNOWN_FIELD,
                    "there is no such parameter here",
                ));
            }
            if faults.are_full() {
                return;
            }
        }
    }
}
