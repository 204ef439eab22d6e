//! The client's own data of an order.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// The most entries of one order.
pub const MAX_METADATA_ENTRIES: usize = 20;
/// The most characters of a key, which has at least one.
pub const MAX_METADATA_KEY: usize = 40;
/// The most characters of a value.
pub const MAX_METADATA_VALUE: usize = 500;

/// Texts by key. The keys stand in the order of their code points, so that equal metadata are written in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys with their values.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The bytes of all keys and values.
    pub fn size(&self) -> usize {
        self.entries().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// The JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("texts by key can be written as JSON")
    }
}

impl FromIterator<(String, String)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let text = |from: usize, to: usize| {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(from))
                .max_length(Some(to))
                .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"))
        };
        let texts = ObjectBuilder::new()
            .description(Some("The client's own data. It can change in every status."))
            .schema_type(Type::Object)
            .property_names(Some(text(1, MAX_METADATA_KEY)))
            .additional_properties(Some(text(0, MAX_METADATA_VALUE)))
            .max_properties(Some(MAX_METADATA_ENTRIES));
        Schema::from(texts).into()
    }
}

impl ToSchema for Metadata {
    fn name() -> Cow<'static, str> {
        "Metadata".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_metadata_are_written_in_one_way() {
        let read = |text: &str| serde_json::from_str::<Metadata>(text).unwrap();
        let one = read(r#"{"b": "2", "a\u0061": "\"\u00e9", "": ""}"#);
        assert_eq!(one, read(r#"{"":"","aa":"\"é","b":"2"}"#));
        assert_eq!(one.to_json(), r#"{"":"","aa":"\"é","b":"2"}"#);
        assert_eq!(Metadata::default().to_json(), "{}");
    }
}
