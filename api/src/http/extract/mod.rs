//! Reading requests: bodies and queries become types that cannot be wrong, and every error of a request is reported at
//! once. What a field means is decided by the endpoint that reads it.
//!
//! Bodies are decoded from [`serde_json::value::RawValue`], so that numbers keep every digit the client wrote, a
//! field given twice is noticed, and an error names its place as a JSON Pointer:
//!
//! ```
//! use api::http::{
//!     error::ApiError,
//!     extract::{FieldErrors, Object},
//! };
//!
//! fn parse(body: &[u8]) -> Result<i64, ApiError> {
//!     let mut errors = FieldErrors::new();
//!     let mut fields = Object::parse(body)?;
//!     let quantity = fields.required("quantity", |value| value.integer(1..=1000), &mut errors);
//!     fields.reject_unknown(&mut errors);
//!     errors.into_result(|| quantity)
//! }
//!
//! assert_eq!(parse(br#"{"quantity": 2}"#).ok(), Some(2));
//! assert!(parse(br#"{"quantity": 0, "colour": "red"}"#).is_err());
//! ```

mod body;
mod field_errors;
mod object;
mod query;
mod text;
mod value;

pub use body::{AUTH_BODY_BYTES, BATCH_BODY_BYTES, BodyLimits, JsonBody, MAX_BODY_BYTES};
pub(crate) use body::{BodyReader, essence, require_uncompressed};
pub use field_errors::{FieldErrors, field_code};
pub use object::Object;
pub use query::Query;
pub(in crate::http) use text::{check_text, parse_trimmed_text};
pub use value::Value;
