//! An order as JSON. Written by hand, because each creation and each change writes it twice, in full and as a change:
//! a serialiser would look for characters to escape in names and values that have none. Read by hand where it stands
//! in an event, because a reader of any JSON goes over every part several times; what was not written here is left to
//! that.

mod read;
mod write;

pub(crate) use read::{changes, order};

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::order::Order;

    fn sample() -> Value {
        json!({
            "id": 7, "customer_id": i64::MAX, "order_date": "0987-01-20", "status": "PENDING", "total_amount": "49999999500.05",
            "version": 1, "created_at": "2025-01-20T10:00:00.000001Z", "updated_at": "2025-12-31T23:59:59.123456Z",
            "lines": [
                {"id": 9, "product_id": 1001, "quantity": 1000, "unit_price": "0.00"},
                {"id": 10, "product_id": 1002, "quantity": 1, "unit_price": "999999.99"},
            ],
        })
    }

    fn order(json: &Value) -> Order {
        serde_json::from_value(json.clone()).unwrap()
    }

    fn fields(before: Option<&Value>, after: Option<&Value>) -> Value {
        let (before, after) = (before.map(order), after.map(order));
        serde_json::from_str(Order::changes(before.as_ref(), after.as_ref()).json()).unwrap()
    }

    #[test]
    fn an_order_is_written_as_it_was_read_with_its_fields_in_order() {
        let sample = sample();
        let json = order(&sample).to_json();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), sample);
        assert_eq!(serde_json::to_string(&order(&sample)).unwrap(), json);
        assert!(
            json.starts_with(
                r#"{"id":7,"customer_id":9223372036854775807,"order_date":"0987-01-20","status":"#
            )
        );
        let mut bare = sample;
        bare["lines"] = json!([]);
        assert_eq!(serde_json::from_str::<Value>(&order(&bare).to_json()).unwrap(), bare);
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
        assert_eq!(fields(None, Some(&before)), sides(&none, &field));
        assert_eq!(fields(Some(&before), None), sides(&field, &none));
        assert_eq!(fields(Some(&before), Some(&before)), json!({}));

        let mut after = before.clone();
        after["status"] = json!("SHIPPED");
        after["version"] = json!(2);
        assert_eq!(
            fields(Some(&before), Some(&after)),
            json!({"status": {"from": "PENDING", "to": "SHIPPED"}})
        );
        after["lines"] = json!([]);
        assert_eq!(
            fields(Some(&before), Some(&after)),
            json!({"lines": {"from": before["lines"], "to": []}, "status": {"from": "PENDING", "to": "SHIPPED"}})
        );
    }
}
