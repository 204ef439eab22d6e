//! What a change changed: each field with its value before and after.

use std::{collections::BTreeMap, fmt};

use bytestring::ByteString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use utoipa::ToSchema;

/// One field before and after. `null` stands for "there was none": `from` at creation, `to` at deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The value before.
    pub from: Value,
    /// The value after.
    pub to: Value,
}

/// The changed fields by name.
pub type ChangedFields = BTreeMap<String, FieldChange>;

/// The changed fields by name, as JSON: it is written once and then handed on, seldom looked into.
#[derive(Clone, Debug)]
pub struct Changes(ByteString);

impl Changes {
    /// Takes JSON of the shape of [`ChangedFields`].
    pub fn read(json: ByteString) -> Result<Self, serde_json::Error> {
        if json.contains('\\') {
            // JSON's grammar lets half a surrogate pair through, which nobody can read later.
            serde_json::from_str::<ChangedFields>(&json)?;
        } else {
            serde_json::from_str::<Shape>(&json)?;
        }
        Ok(Self(json))
    }

    /// What [`super::Order::changes`] wrote.
    pub(crate) fn written(json: ByteString) -> Self {
        Self(json)
    }

    /// The JSON.
    pub fn json(&self) -> &str {
        &self.0
    }

    /// The fields.
    pub fn fields(&self) -> ChangedFields {
        // The shape was checked when it was read.
        serde_json::from_str(self.json()).unwrap_or_default()
    }
}

/// By value: the same may be written in several ways.
impl PartialEq for Changes {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json() || self.fields() == other.fields()
    }
}

impl Eq for Changes {}

/// Fields by name, each with its two sides, whatever they hold.
struct Shape;

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Shape, A::Error> {
        while fields.next_entry::<IgnoredAny, Sides<IgnoredAny>>()?.is_some() {}
        Ok(Shape)
    }
}

/// A [`FieldChange`] of whatever type the field has.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only the shape counts")]
struct Sides<T> {
    from: T,
    to: T,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Changes, serde_json::Error> {
        Changes::read(text.into())
    }

    #[test]
    fn changes_keep_their_text_and_have_the_shape_they_say() {
        let text = r#"{ "status" : {"from": "PENDING", "to": "SHIPPED"}, "lines": {"from": null, "to": [{"id": 1e3}]} }"#;
        let changes = read(text).unwrap();
        assert_eq!(changes.json(), text);
        assert_eq!(changes.fields()["status"], FieldChange { from: "PENDING".into(), to: "SHIPPED".into() });
        assert_eq!(changes, read(&text.replace(' ', "")).unwrap());
        for wrong in [
            "null",
            "[]",
            r#""status""#,
            r#"{"status": null}"#,
            r#"{"status": {"from": 1}}"#,
            r#"{"status": {"from": 1, "to": "\ud800"}}"#,
            r#"{"status": {"from": 1, "to": [{"\udc00": 1}]}}"#,
            r#"{"status": {"from": 1, "to": 2}} x"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
