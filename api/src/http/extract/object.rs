//! A JSON object, read field by field.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{FieldErrors, Value, field_code};
use crate::http::error::{ApiError, Code, FieldError};

/// An object whose fields are read one by one. Fields that are never read are unknown.
#[derive(Debug)]
pub struct Object<'a> {
    pointer: String,
    fields: Fields<'a>,
}

/// All fields in the order in which they were written, repeated ones included.
#[derive(Debug)]
struct Fields<'a>(Vec<Field<'a>>);

#[derive(Debug)]
struct Field<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
    is_read: bool,
}

impl<'a> Object<'a> {
    /// Reads a body. Fails with 400 if it is not JSON, with 422 if it is not an object.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let malformed = |cause: String| {
            ApiError::new(Code::MalformedRequest, format!("the body is not valid JSON: {cause}"))
        };
        let text = std::str::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        Self::from_value(&Value::new(raw, String::new())).map_err(|error| ApiError::validation(vec![error]))
    }

    /// Reads a value as an object.
    pub fn from_value(value: &Value<'a>) -> Result<Self, FieldError> {
        if !value.starts_with(|byte| byte == b'{') {
            return Err(value.error(field_code::INVALID_TYPE, "must be an object"));
        }
        let fields = serde_json::from_str(value.json())
            .map_err(|_| value.error(field_code::INVALID_VALUE, "must have names of valid Unicode text"))?;
        Ok(Self { pointer: value.pointer().to_owned(), fields })
    }

    /// Reads a field that must be there. Returns `None` if it is missing or invalid; then an error was collected.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, FieldError>,
        errors: &mut FieldErrors,
    ) -> Option<T> {
        let value = self.required_value(name, errors)?;
        errors.check(read(&value))
    }

    /// Reads a field that can be missing. Returns `Some(None)` if it is missing, and `None` if it is invalid; then an error
    /// was collected.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, FieldError>,
        errors: &mut FieldErrors,
    ) -> Option<Option<T>> {
        match self.value(name) {
            Some(value) => errors.check(read(&value)).map(Some),
            None => Some(None),
        }
    }

    /// Returns the value of a field that must be there, for a reader that collects several errors, such as an array's.
    pub fn required_value(&mut self, name: &'static str, errors: &mut FieldErrors) -> Option<Value<'a>> {
        let value = self.value(name);
        if value.is_none() {
            errors.push(FieldError::new(self.pointer_of(name), field_code::REQUIRED, "is required"));
        }
        value
    }

    /// Returns the value of a field, if it is there.
    pub fn value(&mut self, name: &'static str) -> Option<Value<'a>> {
        let field = self.fields.0.iter_mut().find(|field| field.name == name)?;
        field.is_read = true;
        let raw = field.value;
        Some(Value::new(raw, self.pointer_of(name)))
    }

    /// Reads all fields of an object whose names the client chooses. More than `most` are one error, and then none is read.
    pub fn all<T>(
        self,
        most: usize,
        errors: &mut FieldErrors,
        mut read: impl FnMut(Cow<'a, str>, &Value<'a>) -> Result<T, FieldError>,
    ) -> Option<Vec<T>> {
        if self.fields.0.len() > most {
            let detail = format!("must have at most {most} entries");
            errors.push(FieldError::new(self.pointer, field_code::INVALID_LENGTH, detail));
            return None;
        }
        let mut items = Vec::with_capacity(self.fields.0.len());
        for (index, field) in self.fields.0.iter().enumerate() {
            let value = Value::new(field.value, self.pointer_of(&field.name));
            if self.fields.0[..index].iter().any(|other| other.name == field.name) {
                errors.push(value.error(field_code::DUPLICATE_FIELD, "is given more than once"));
                continue;
            }
            items.push(errors.check(read(field.name.clone(), &value)));
        }
        items.into_iter().collect()
    }

    /// Collects an error for each field that was not read: unknown ones, and repeated ones.
    pub fn reject_unknown(self, errors: &mut FieldErrors) {
        for (index, field) in self.fields.0.iter().enumerate() {
            let earlier = self.fields.0[..index].iter().any(|other| other.name == field.name);
            if earlier {
                errors.push(FieldError::new(
                    self.pointer_of(&field.name),
                    field_code::DUPLICATE_FIELD,
                    "is given more than once",
                ));
            } else if !field.is_read {
                let detail = "there is no such field here";
                errors.push(FieldError::new(self.pointer_of(&field.name), field_code::UNKNOWN_FIELD, detail));
            }
            if errors.are_full() {
                return;
            }
        }
    }

    /// A JSON Pointer (RFC 6901): `~` and `/` in a name are written `~0` and `~1`.
    fn pointer_of(&self, name: &str) -> String {
        let mut pointer = String::with_capacity(self.pointer.len() + 1 + name.len());
        pointer.push_str(&self.pointer);
        pointer.push('/');
        for character in name.chars() {
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                other => pointer.push(other),
            }
        }
        pointer
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push(Field { name, value: map.next_value()?, is_read: false });
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
