//! The bodies of requests: what is understood reads the same when written out again, and what is refused says where.

#![no_main]

use api::{
    auth::Role,
    http::{error::Code, extract::field_code, orders::fuzzing},
};
use fuzz::{LATEST, caller, check_problem, choice};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shared::domain::order::{
    MAX_LINES, MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_QUANTITY, MAX_REFERENCE, Money,
};

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = choice(data) else { return };
    let caller = caller(choice);
    let creates = choice & 2 == 0;
    let parse = |body: &[u8]| {
        if creates { fuzzing::create(body, caller, LATEST) } else { fuzzing::update(body, LATEST) }
    };
    match parse(body) {
        Ok(understood) => {
            let mut command: Value = serde_json::from_str(&understood).expect("JSON");
            check_command(&command);
            if creates && caller.role == Role::Customer {
                assert_eq!(command["customer_id"], caller.customer_id.get());
            }
            // What an update does not name is written as `null`, which no request may, except to take a reference away.
            command
                .as_object_mut()
                .expect("an object")
                .retain(|name, value| name == "reference" || !value.is_null());
            let again = parse(command.to_string().as_bytes()).expect("what was written out is understood");
            assert_eq!(again, understood);
        }
        Err(error) => {
            let codes: &[Code] = if creates {
                &[Code::MalformedRequest, Code::ValidationFailed, Code::Forbidden]
            } else {
                &[Code::MalformedRequest, Code::ValidationFailed]
            };
            let faults = check_problem(&error, codes);
            for (pointer, _) in &faults {
                check_pointer(pointer);
            }
            // This reader takes no body so deep, and of two fields with one name the other.
            let twice = faults.iter().any(|(_, code)| code == field_code::DUPLICATE_FIELD);
            if let (false, Ok(body)) = (twice, serde_json::from_slice::<Value>(body)) {
                faults.iter().for_each(|(pointer, code)| check_place(&body, pointer, code));
            }
        }
    }
});

/// Nothing beyond the limits is understood.
fn check_command(command: &Value) {
    if let Some(date) = command["order_date"].as_str() {
        let date = shared::domain::timestamp::parse_date(date).expect("a date");
        assert!(date <= LATEST);
    }
    if let Some(reference) = command["reference"].as_str() {
        check_text(reference, 1, MAX_REFERENCE);
        assert_eq!(reference.trim(), reference);
    }
    if let Some(metadata) = command["metadata"].as_object() {
        assert!(metadata.len() <= MAX_METADATA_ENTRIES);
        for (key, value) in metadata {
            check_text(key, 1, MAX_METADATA_KEY);
            check_text(value.as_str().expect("a text"), 0, MAX_METADATA_VALUE);
        }
    }
    let Some(lines) = command["lines"].as_array() else { return };
    assert!((1..=MAX_LINES).contains(&lines.len()));
    for line in lines {
        assert!(line["product_id"].as_i64().is_some_and(|id| id > 0));
        assert!(line["quantity"].as_i64().is_some_and(|pieces| (1..=MAX_QUANTITY.into()).contains(&pieces)));
        let price: Money = line["unit_price"].as_str().expect("a text").parse().expect("an amount");
        assert!((Money::ZERO..=Money::MAX_UNIT_PRICE).contains(&price));
    }
}

/// PostgreSQL can store it, and everybody can see it.
fn check_text(text: &str, least: usize, most: usize) {
    assert!((least..=most).contains(&text.chars().count()), "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// A JSON Pointer (RFC 6901): empty, or `/` before each part, and `~` only as `~0` or `~1`.
fn check_pointer(pointer: &str) {
    assert!(pointer.is_empty() || pointer.starts_with('/'), "{pointer:?}");
    let mut rest = pointer.split('~');
    rest.next();
    assert!(rest.all(|after| after.starts_with(['0', '1'])), "{pointer:?}");
}

/// It points to something that is there, or into something from which it is missing.
fn check_place(body: &Value, pointer: &str, code: &str) {
    if code == field_code::REQUIRED {
        let (parent, _) = pointer.rsplit_once('/').expect("a field is missing");
        assert!(body.pointer(parent).is_some_and(Value::is_object), "{pointer:?} in {body}");
    } else {
        assert!(body.pointer(pointer).is_some(), "{pointer:?} in {body}");
    }
}
