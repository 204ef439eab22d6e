//! What a change changed: each field with its value before and after.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use utoipa::ToSchema;

/// Fields of an order that are never listed as changed: `id` stays the same, and the event and the history have fields of
/// their own for the others.
const NOT_LISTED: [&str; 4] = ["id", "version", "created_at", "updated_at"];

/// One field before and after. `null` means that there was no value: `from` at creation, `to` at deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The value before.
    pub from: Value,
    /// The value after.
    pub to: Value,
}

/// The changed fields by name.
pub type ChangedFields = BTreeMap<String, FieldChange>;

/// The changed fields by name, as JSON: the text is written once and stored as it is.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Changes(Box<RawValue>);

impl Changes {
    /// Lists the fields that differ between two versions of an order, each given as its JSON; `None` if there is no order.
    ///
    /// It compares all fields that the texts have, so a field that is new in `Order` is listed without a change here. A
    /// field that is missing or `null` on both sides is not listed.
    pub(in crate::domain) fn between(before: Option<&str>, after: Option<&str>) -> Self {
        let (before, after) = (read_fields(before), read_fields(after));
        let mut changes = BTreeMap::new();
        for name in before.keys().chain(after.keys()) {
            let (from, to) = (value_of(&before, name), value_of(&after, name));
            if from.get() != to.get() && !NOT_LISTED.contains(name) {
                changes.insert(name, Sides { from, to });
            }
        }
        Self(to_raw_value(&changes).expect("changes can be written as JSON"))
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// The fields.
    pub fn fields(&self) -> ChangedFields {
        serde_json::from_str(self.json()).expect("the shape was checked when the text was read")
    }
}

impl<'de> Deserialize<'de> for Changes {
    /// Reads JSON of the shape of [`ChangedFields`] and keeps its text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        check_shape(json.get()).map_err(D::Error::custom)?;
        Ok(Self(json))
    }
}

/// Compares the values: one value can be written in several ways.
impl PartialEq for Changes {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json() || self.fields() == other.fields()
    }
}

impl Eq for Changes {}

/// The fields of an order by name, each as its JSON.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

/// A [`FieldChange`] of any type.
#[derive(Serialize, Deserialize)]
struct Sides<T> {
    from: T,
    to: T,
}

fn read_fields(order: Option<&str>) -> Fields<'_> {
    order.map(|json| serde_json::from_str(json).expect("an order is an object of JSON")).unwrap_or_default()
}

fn value_of<'a>(fields: &Fields<'a>, name: &str) -> &'a RawValue {
    fields.get(name).copied().unwrap_or(RawValue::NULL)
}

fn check_shape(json: &str) -> Result<(), serde_json::Error> {
    if json.contains('\\') {
        // JSON's grammar allows half a surrogate pair, which PostgreSQL refuses later. Only a full read finds it.
        serde_json::from_str::<ChangedFields>(json).map(drop)
    } else {
        serde_json::from_str::<BTreeMap<&str, Sides<&RawValue>>>(json).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Changes, serde_json::Error> {
        serde_json::from_str(text)
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

    fn sample() -> Value {
        json!({
            "id": 7, "customer_id": i64::MAX, "order_date": "0987-01-20", "status": "PENDING", "total_amount": "49999999500.05",
            "version": 1, "created_at": "2025-01-20T10:00:00.000001Z", "updated_at": "2025-12-31T23:59:59.123456Z",
            "lines": [{"id": 9, "product_id": 1001, "quantity": 1000, "unit_price": "0.00"}],
        })
    }

    fn between(before: Option<&Value>, after: Option<&Value>) -> Value {
        let (before, after) = (before.map(Value::to_string), after.map(Value::to_string));
        serde_json::from_str(Changes::between(before.as_deref(), after.as_deref()).json()).unwrap()
    }

    #[test]
    fn changes_are_the_fields_that_differ_with_both_sides() {
        let before = sample();
        let named = ["customer_id", "lines", "order_date", "status", "total_amount"];
        let sides = |from: &dyn Fn(&str) -> Value, to: &dyn Fn(&str) -> Value| -> Value {
            named
                .iter()
                .map(|name| ((*name).to_owned(), json!({"from": from(name), "to": to(name)})))
                .collect()
        };
        let (field, none) = (|name: &str| before[name].clone(), |_: &str| Value::Null);
        assert_eq!(between(None, Some(&before)), sides(&none, &field));
        assert_eq!(between(Some(&before), None), sides(&field, &none));
        assert_eq!(between(Some(&before), Some(&before)), json!({}));

        let mut after = before.clone();
        after["status"] = json!("SHIPPED");
        after["version"] = json!(2);
        assert_eq!(
            between(Some(&before), Some(&after)),
            json!({"status": {"from": "PENDING", "to": "SHIPPED"}})
        );
        after["lines"] = json!([]);
        assert_eq!(
            between(Some(&before), Some(&after)),
            json!({"lines": {"from": before["lines"], "to": []}, "status": {"from": "PENDING", "to": "SHIPPED"}})
        );
    }

    #[test]
    fn an_optional_field_is_listed_only_if_it_has_a_value_on_one_side() {
        let (without, mut with_null, mut with_note) = (sample(), sample(), sample());
        with_null["note"] = json!(null);
        with_note["note"] = json!("\"fragile\"\n");
        assert_eq!(between(Some(&without), Some(&with_null)), json!({}));
        assert!(between(None, Some(&with_null)).get("note").is_none());
        assert_eq!(
            between(Some(&with_null), Some(&with_note)),
            json!({"note": {"from": null, "to": "\"fragile\"\n"}})
        );
    }
}
