//! A value beside its JSON.

use std::ops::Deref;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;

/// A value together with its JSON text, written or read once: whoever sends it on shares the text.
#[derive(Clone, Debug)]
pub struct Encoded<T> {
    value: T,
    json: ByteString,
}

impl<T: for<'a> Deserialize<'a>> Encoded<T> {
    /// Reads it from its JSON, which is kept as it is.
    pub fn read(json: ByteString) -> Result<Self, serde_json::Error> {
        Ok(Self { value: serde_json::from_str(&json)?, json })
    }
}

impl<T> Encoded<T> {
    /// A value and the JSON it was read from.
    pub(crate) fn from_parts(value: T, json: ByteString) -> Self {
        Self { value, json }
    }

    /// Its JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Its JSON, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.json.as_bytes().clone()
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Encoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// By value: the same may be written in several ways.
impl<T: PartialEq> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Encoded<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept_as_it_came_and_the_value_is_checked() {
        let read: Encoded<Vec<i32>> = Encoded::read("[1, 2]".into()).unwrap();
        assert_eq!((read.json(), read.len()), ("[1, 2]", 2));
        assert_eq!(read.to_bytes(), "[1, 2]");
        assert_eq!(read, Encoded::read("[1,2]".into()).unwrap());
        assert!(Encoded::<Vec<i32>>::read("[1, true]".into()).is_err());
    }
}
