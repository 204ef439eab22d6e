//! A JSON object, read field by field.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{FieldErrors, Value, fault};
use crate::http::error::{ApiError, Code, FieldError};

/// An object whose fields are taken one by one; what is left over in the end is unknown.
#[derive(Debug)]
pub struct Object<'a> {
    pointer: String,
    fields: Fields<'a>,
}

/// All fields in the order written, also those written twice.
#[derive(Debug)]
struct Fields<'a>(Vec<Field<'a>>);

#[derive(Debug)]
struct Field<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
    seen: bool,
}

impl<'a> Object<'a> {
    /// Reads a body: 400 where it is not JSON, 422 where it is no object.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let malformed = |cause: String| {
            ApiError::new(Code::MalformedRequest, format!("the body is not valid JSON: {cause}"))
        };
        let text = std::str::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        Value::new(raw, String::new()).object().map_err(|fault| ApiError::validation(vec![fault]))
    }

    pub(super) fn read(raw: &'a RawValue, pointer: String) -> Result<Self, serde_json::Error> {
        Ok(Self { pointer, fields: serde_json::from_str(raw.get())? })
    }

    /// Takes a field that must be there. `None` where it is missing or faulty; then a fault was collected.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, FieldError>,
        faults: &mut FieldErrors,
    ) -> Option<T> {
        let value = self.required_value(name, faults)?;
        faults.check(read(&value))
    }

    /// Takes a field that may be missing: `Some(None)`. The outer `None` stands for a fault, which was collected.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, FieldError>,
        faults: &mut FieldErrors,
    ) -> Option<Option<T>> {
        match self.value(name) {
            Some(value) => faults.check(read(&value)).map(Some),
            None => Some(None),
        }
    }

    /// Takes the value of a field that must be there, for one that collects faults of its own, such as an array.
    pub fn required_value(&mut self, name: &'static str, faults: &mut FieldErrors) -> Option<Value<'a>> {
        let value = self.value(name);
        if value.is_none() {
            faults.push(FieldError::new(self.pointer_to(name), fault::REQUIRED, "is required"));
        }
        value
    }

    /// Takes the value of a field, where it is there.
    pub fn value(&mut self, name: &'static str) -> Option<Value<'a>> {
        let field = self.fields.0.iter_mut().find(|field| field.name == name)?;
        field.seen = true;
        let raw = field.value;
        Some(Value::new(raw, self.pointer_to(name)))
    }

    /// Collects the fields that nobody took: unknown ones, and second ones of the same name.
    pub fn reject_unknown(self, faults: &mut FieldErrors) {
        for (index, field) in self.fields.0.iter().enumerate() {
            let earlier = self.fields.0[..index].iter().any(|other| other.name == field.name);
            if earlier {
                faults.push(FieldError::new(
                    self.pointer_to(&field.name),
                    fault::DUPLICATE_FIELD,
                    "is given more than once",
                ));
            } else if !field.seen {
                let detail = "there is no such field here";
                faults.push(FieldError::new(self.pointer_to(&field.name), fault::UNKNOWN_FIELD, detail));
            }
            if faults.are_full() {
                return;
            }
        }
    }

    /// A JSON Pointer (RFC 6901): `~` and `/` in a name are written `~0` and `~1`.
    fn pointer_to(&self, name: &str) -> String {
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
                    fields.push(Field { name, value: map.next_value()?, seen: false });
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
