//! Reading requests: what is asked for is parsed into types that cannot be wrong, and every fault of a request is
//! reported at once.
//!
//! Bodies are decoded from [`serde_json::value::RawValue`], so that numbers keep every digit the client wrote, a
//! field given twice is seen, and a fault names its place as a JSON Pointer:
//!
//! ```
//! use api::extract::{FieldErrors, Object};
//!
//! fn read(body: &[u8]) -> Result<i64, api::error::ApiError> {
//!     let mut faults = FieldErrors::new();
//!     let mut fields = Object::parse(body)?;
//!     let quantity = fields.required("quantity", |value| value.integer(1..=1000), &mut faults);
//!     fields.reject_unknown(&mut faults);
//!     faults.into_result(|| Some(quantity?))
//! }
//!
//! assert_eq!(read(br#"{"quantity": 2}"#).ok(), Some(2));
//! assert!(read(br#"{"quantity": 0, "colour": "red"}"#).is_err());
//! ```

mod body;
mod faults;
mod object;
mod query;
mod value;

pub(crate) use body::BodyReader;
pub use body::{AUTH_BODY_BYTES, BodyLimits, JsonBody, MAX_BODY_BYTES};
pub use faults::FieldErrors;
pub use object::Object;
pub use query::Query;
pub use value::Value;

/// The names of faults, stable for programs.
pub mod fault {
    /// The field must be there.
    pub const REQUIRED: &str = "required";
    /// No such field or parameter exists.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// The field or parameter is given more than once.
    pub const DUPLICATE_FIELD: &str = "duplicate_field";
    /// A JSON value of another type is expected.
    pub const INVALID_TYPE: &str = "invalid_type";
    /// Right type, but no such value exists: a date, a status, an address.
    pub const INVALID_VALUE: &str = "invalid_value";
    /// Outside the bounds, which the detail names.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// Fewer or more elements or characters than allowed.
    pub const INVALID_LENGTH: &str = "invalid_length";
    /// A password that is common or close to the address.
    pub const TOO_WEAK: &str = "too_weak";
    /// More decimals than the amount may have.
    pub const TOO_MANY_DECIMALS: &str = "too_many_decimals";
}
