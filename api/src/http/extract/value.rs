//! One JSON value and its place in the body.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr};

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::domain::order::Number;

use super::{FieldErrors, field_code};
use crate::http::error::FieldError;

/// A value as the client wrote it, not yet read as the type that is expected.
#[derive(Clone, Debug)]
pub struct Value<'a> {
    raw: &'a RawValue,
    pointer: String,
}

/// A text that can borrow from the body; serde copies a bare `Cow`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Value<'a> {
    /// The value at `pointer`.
    pub(crate) fn new(raw: &'a RawValue, pointer: String) -> Self {
        Self { raw, pointer }
    }

    /// An error of this value.
    pub fn error(&self, code: &'static str, detail: impl Into<String>) -> FieldError {
        FieldError::new(self.pointer.clone(), code, detail)
    }

    /// The JSON text.
    pub fn json(&self) -> &'a str {
        self.raw.get()
    }

    /// Its place: a JSON Pointer.
    pub(super) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Checks the first character, which decides the type of a JSON value.
    pub(super) fn starts_with(&self, first: impl Fn(u8) -> bool) -> bool {
        self.json().bytes().next().is_some_and(first)
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.json() == "null"
    }

    fn is_number(&self) -> bool {
        self.starts_with(|byte| byte == b'-' || byte.is_ascii_digit())
    }

    /// Reads a string.
    pub fn string(&self) -> Result<Cow<'a, str>, FieldError> {
        if !self.starts_with(|byte| byte == b'"') {
            return Err(self.error(field_code::INVALID_TYPE, "must be a string"));
        }
        // JSON's grammar allows a lone surrogate; a string cannot hold one.
        serde_json::from_str::<Text<'a>>(self.json())
            .map(|text| text.0)
            .map_err(|_| self.error(field_code::INVALID_VALUE, "must be valid Unicode text"))
    }

    /// Reads a string as a `T`, whose parse error says what it must be.
    pub fn parsed<T: FromStr<Err: Display>>(&self) -> Result<T, FieldError> {
        self.string()?
            .parse()
            .map_err(|error: T::Err| self.error(field_code::INVALID_VALUE, error.to_string()))
    }

    /// Reads a whole number within bounds. `2.0` and `2e0` are whole numbers too, as in JSON Schema.
    pub fn integer(&self, bounds: RangeInclusive<i64>) -> Result<i64, FieldError> {
        if !self.is_number() {
            return Err(self.error(field_code::INVALID_TYPE, "must be an integer"));
        }
        let out_of_range = || self.error(field_code::OUT_OF_RANGE, range_detail(&bounds));
        let number = match self.json().parse::<i64>() {
            Ok(number) => number,
            Err(_) => match Number::parse(self.json()) {
                Some(number) if number.is_integer() => number.to_i64().ok_or_else(out_of_range)?,
                _ => return Err(self.error(field_code::INVALID_TYPE, "must be an integer")),
            },
        };
        if bounds.contains(&number) { Ok(number) } else { Err(out_of_range()) }
    }

    /// Reads a positive 64-bit integer as an identifier.
    pub fn id<T: TryFrom<i64>>(&self) -> Result<T, FieldError> {
        let id = self.integer(1..=i64::MAX)?;
        T::try_from(id).map_err(|_| self.error(field_code::OUT_OF_RANGE, "must be a positive 64-bit integer"))
    }

    /// Reads the text of a decimal: a JSON number as written, or a string.
    pub fn decimal(&self) -> Result<Cow<'a, str>, FieldError> {
        if self.is_number() {
            return Ok(Cow::Borrowed(self.json()));
        }
        self.string()
            .map_err(|_| self.error(field_code::INVALID_TYPE, "must be a number, or a number in a string"))
    }

    /// Reads `true` or `false`.
    pub fn boolean(&self) -> Result<bool, FieldError> {
        self.json().parse().map_err(|_| self.error(field_code::INVALID_TYPE, "must be true or false"))
    }

    /// Reads a list. `item` reads each element. A wrong length is one error, and then no element is read.
    pub fn array<T>(
        &self,
        length: RangeInclusive<usize>,
        errors: &mut FieldErrors,
        mut item: impl FnMut(Value<'a>, &mut FieldErrors) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.starts_with(|byte| byte == b'[') {
            errors.push(self.error(field_code::INVALID_TYPE, "must be an array"));
            return None;
        }
        let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(self.json()) else {
            errors.push(self.error(field_code::INVALID_TYPE, "must be an array"));
            return None;
        };
        if !length.contains(&elements.len()) {
            let detail = format!("must have {} to {} elements", length.start(), length.end());
            errors.push(self.error(field_code::INVALID_LENGTH, detail));
            return None;
        }
        // Every element is read, so that the errors of all are reported.
        let items: Vec<Option<T>> = elements
            .into_iter()
            .enumerate()
            .map(|(index, raw)| item(Value::new(raw, format!("{}/{index}", self.pointer)), errors))
            .collect();
        items.into_iter().collect()
    }
}

/// The detail of an integer outside of `bounds`.
pub(super) fn range_detail(bounds: &RangeInclusive<i64>) -> String {
    if *bounds.end() == i64::MAX {
        format!("must be at least {} and fit 64 bits", bounds.start())
    } else {
        format!("must be between {} and {}", bounds.start(), bounds.end())
    }
}
