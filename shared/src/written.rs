//! A value beside its JSON.

use std::ops::Deref;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::{RawValue, to_raw_value};

/// A value together with its JSON text, written or read once: whoever sends it on copies the text.
#[derive(Clone, Debug)]
pub struct Written<T> {
    value: T,
    json: Box<RawValue>,
}

impl<T: Serialize> Written<T> {
    /// Writes it out.
    pub fn new(value: T) -> Result<Self, serde_json::Error> {
        Ok(Self { json: to_raw_value(&value)?, value })
    }
}

impl<T> Written<T> {
    /// Its JSON.
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// A copy of its JSON, to be shared.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.json().as_bytes())
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Written<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// By value: the same may be written in several ways.
impl<T: PartialEq> PartialEq for Written<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Written<T> {}

impl<T> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de, T: for<'a> Deserialize<'a>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let value = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self { value, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept_as_it_came_and_the_value_is_checked() {
        let read: Written<Vec<i32>> = serde_json::from_str("[1, 2]").unwrap();
        assert_eq!((read.json(), read.len()), ("[1, 2]", 2));
        assert_eq!(serde_json::to_string(&read).unwrap(), "[1, 2]");
        assert_eq!(read, Written::new(vec![1, 2]).unwrap());
        assert!(serde_json::from_str::<Written<Vec<i32>>>("[1, true]").is_err());
    }
}
