//! What the fuzz targets have in common.

use api::{
    auth::{Caller, Role},
    http::{
        error::{ApiError, Code},
        extract::field_code,
        layer::problem,
    },
};
use serde_json::Value;
use shared::domain::tenant::TenantId;
use time::{Date, macros::date};

/// The latest date of an order: today, in the time zone that is furthest ahead.
pub const LATEST: Date = date!(2025 - 06 - 30);

/// The caller that the first byte chooses.
pub fn caller(choice: u8) -> Caller {
    let role = if choice & 1 == 0 { Role::Customer } else { Role::Admin };
    Caller::at_home(TenantId::DEFAULT, 123.try_into().expect("positive"), role)
}

/// Splits off the first byte, which chooses a variant of the target.
pub fn choice(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// Asserts that an error is a complete problem document with one of these codes. Returns the pointer and code of each field error.
pub fn check_problem(error: &ApiError, codes: &[Code]) -> Vec<(String, String)> {
    assert!(codes.contains(&error.code()), "{:?} is none of {codes:?}", error.code());
    assert!(error.chain().is_none_or(|chain| !chain.is_empty()));
    let document = problem::document(error, "/api/v1/orders", "a-request");
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    assert_eq!(document["status"], error.status().as_u16());
    for member in ["type", "title", "detail", "instance", "code", "request_id"] {
        assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {document}");
    }
    let errors = document["errors"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(errors.is_empty(), error.code() != Code::ValidationFailed, "{document}");
    assert!(errors.len() <= 100, "{} errors", errors.len());
    errors.iter().map(check_field_error).collect()
}

fn check_field_error(error: &Value) -> (String, String) {
    let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("no {name}: {error}")).to_owned();
    let (pointer, code) = (text("pointer"), text("code"));
    assert!(!text("detail").is_empty());
    let known = [
        field_code::REQUIRED,
        field_code::UNKNOWN_FIELD,
        field_code::DUPLICATE_FIELD,
        field_code::INVALID_TYPE,
        field_code::INVALID_VALUE,
        field_code::OUT_OF_RANGE,
        field_code::INVALID_LENGTH,
        field_code::TOO_MANY_DECIMALS,
    ];
    assert!(known.contains(&code.as_str()), "{code}");
    (pointer, code)
}
