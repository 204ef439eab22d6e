//! A value beside its JSON.

use std::ops::Deref;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

/// A value together with its JSON text. The text is written or read once, and every document that holds the value holds
/// the same text.
#[derive(Clone, Debug)]
pub struct Encoded<T> {
    value: T,
    json: Box<RawValue>,
}

impl<T: Serialize> Encoded<T> {
    /// Writes the JSON of a value.
    ///
    /// # Panics
    ///
    /// If the value has a map whose keys are not strings.
    pub fn new(value: T) -> Self {
        let json = to_raw_value(&value).expect("the value can be written as JSON");
        Self { value, json }
    }
}

impl<T> Encoded<T> {
    /// The JSON text.
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// A copy of the JSON text.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.json().as_bytes())
    }

    /// Changes what the JSON does not hold.
    pub(super) fn with_unwritten(mut self, change: impl FnOnce(&mut T)) -> Self {
        change(&mut self.value);
        self
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

/// Compares the values: one value can be written in several ways.
impl<T: PartialEq> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Encoded<T> {}

impl<T> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let value = serde_json::from_str(json.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { value, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept_as_it_was_read_and_the_value_is_checked() {
        let read = |text| serde_json::from_str::<Encoded<Vec<i32>>>(text);
        let encoded = read("[1, 2]").unwrap();
        assert_eq!((encoded.json(), encoded.len()), ("[1, 2]", 2));
        assert_eq!(encoded.to_bytes(), "[1, 2]");
        assert_eq!(serde_json::to_string(&encoded).unwrap(), "[1, 2]");
        assert_eq!(encoded, read("[1,2]").unwrap());
        assert_eq!(Encoded::new(vec![1, 2]).json(), "[1,2]");
        assert!(read("[1, true]").is_err());
    }
}
