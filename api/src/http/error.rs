//! The error of every failed request: what the client reads, and, apart from it, the cause for the log.

use std::{error::Error as StdError, fmt};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::platform::db::DbError;
use utoipa::ToSchema;

/// A response with a status of 4xx or 5xx. Handlers return it; `layer::problem` writes its document (RFC 9457).
///
/// It is one pointer wide, so that a `Result` with it stays small.
#[derive(Debug)]
pub struct ApiError(Box<ErrorParts>);

#[derive(Debug)]
struct ErrorParts {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    facts: Map<String, Value>,
    headers: HeaderMap,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// The stable codes that clients can branch on, each with its status and title.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not JSON, or bad header syntax.
    MalformedRequest,
    /// No, expired, or invalid token.
    Unauthenticated,
    /// Authenticated, but not allowed.
    Forbidden,
    /// The caller's tenant is suspended.
    TenantSuspended,
    /// Nothing here that the caller is allowed to see.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The status cannot change in this way.
    IllegalTransition,
    /// Date and lines change only while the order is pending.
    OrderNotEditable,
    /// Another order of the customer has the reference.
    ReferenceTaken,
    /// The first request with this key is still running.
    IdempotencyInProgress,
    /// Another account has this address.
    EmailTaken,
    /// Another tenant has this slug.
    SlugTaken,
    /// The default tenant must stay.
    DefaultTenant,
    /// The tenant is being removed.
    TenantBeingRemoved,
    /// What follows the cursor is not retained.
    CursorExpired,
    /// `If-Match` is stale.
    VersionMismatch,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// Well-formed but wrong.
    ValidationFailed,
    /// The key was used for another request.
    IdempotencyKeyReused,
    /// Too many requests.
    RateLimited,
    /// The body was not sent in time.
    RequestTimeout,
    /// The request uses a part of HTTP that is not supported.
    NotImplemented,
    /// An error of this service.
    InternalError,
    /// A dependency is down; nothing was changed.
    Unavailable,
    /// The request took too long.
    Timeout,
}

impl Code {
    /// Status, code and title.
    pub const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::MalformedRequest => (StatusCode::BAD_REQUEST, "malformed_request", "Malformed request"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication required"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
            Self::TenantSuspended => (StatusCode::FORBIDDEN, "tenant_suspended", "Tenant suspended"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::IllegalTransition => {
                (StatusCode::CONFLICT, "illegal_transition", "Illegal status transition")
            }
            Self::OrderNotEditable => (StatusCode::CONFLICT, "order_not_editable", "Order not editable"),
            Self::ReferenceTaken => (StatusCode::CONFLICT, "reference_taken", "Reference taken"),
            Self::IdempotencyInProgress => {
                (StatusCode::CONFLICT, "idempotency_in_progress", "Request still in progress")
            }
            Self::EmailTaken => (StatusCode::CONFLICT, "email_taken", "Email address taken"),
            Self::SlugTaken => (StatusCode::CONFLICT, "slug_taken", "Slug taken"),
            Self::DefaultTenant => (StatusCode::CONFLICT, "default_tenant", "Default tenant"),
            Self::TenantBeingRemoved => {
                (StatusCode::CONFLICT, "tenant_being_removed", "Tenant being removed")
            }
            Self::CursorExpired => (StatusCode::GONE, "cursor_expired", "Cursor expired"),
            Self::VersionMismatch => {
                (StatusCode::PRECONDITION_FAILED, "version_mismatch", "Version mismatch")
            }
            Self::PayloadTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "Payload too large")
            }
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::ValidationFailed => {
                (StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", "Validation failed")
            }
            Self::IdempotencyKeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency key reused")
            }
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "Request time-out"),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "not_implemented", "Not implemented"),
            Self::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable"),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout", "Timeout"),
        }
    }
}

/// One error of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The place: a JSON Pointer into the body, or `?name` for a query parameter, or a header's name.
    pub pointer: String,
    /// The kind of error, for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

impl FieldError {
    /// An error at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

impl ApiError {
    /// An error with the text for the client.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(ErrorParts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            facts: Map::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// All field errors of a request at once.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is invalid".to_owned(),
            count => format!("{count} fields are invalid"),
        };
        Self::new(Code::ValidationFailed, detail).with_field_errors(errors)
    }

    /// It does not exist, or is not the caller's: which of the two is not disclosed.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such resource")
    }

    /// A dependency is down and nothing was changed.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Unavailable, "a service this depends on is not available; try again in a moment")
            .caused_by(cause)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// A write whose outcome is not known.
    pub fn unknown_outcome(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Code::Timeout,
            "the outcome is not known; repeat the request with its Idempotency-Key to learn it",
        )
        .caused_by(cause)
    }

    /// An error of this service. The client does not see the cause.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::InternalError, "something went wrong on our side").caused_by(cause)
    }

    /// Adds a member to the problem that the client needs to go on.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Says which fields are the cause.
    #[must_use]
    pub fn with_field_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The errors of fields.
    pub fn field_errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.0.code.parts().0
    }

    /// The cause and its causes on one line, for the log.
    pub fn chain(&self) -> Option<String> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self.0.cause.as_deref()?);
        let mut links = Vec::new();
        while let Some(error) = next {
            links.push(error.to_string());
            next = error.source();
        }
        Some(links.join(": "))
    }

    /// The headers of the response.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The problem document, without the request's path and id.
    pub fn problem(&self) -> Problem {
        let (status, code, title) = self.0.code.parts();
        Problem {
            kind: format!("/problems/{}", code.replace('_', "-")),
            title,
            status: status.as_u16(),
            detail: self.0.detail.clone(),
            instance: String::new(),
            code,
            request_id: String::new(),
            errors: self.0.errors.clone(),
            facts: self.0.facts.clone(),
        }
    }
}

/// A problem (RFC 9457): the body of every response with a status of 4xx or 5xx.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// The kind for programs; it does not change.
    pub code: &'static str,
    /// The request's id, as in the log.
    pub request_id: String,
    /// Every error of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What else the client needs to go on.
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    pub facts: Map<String, Value>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl StdError for ApiError {}

impl IntoResponse for ApiError {
    /// Status and headers. `layer::problem` writes the body, because it knows the request.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.headers_mut().extend(self.headers().clone());
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

impl From<shared::platform::redis::RedisFailure> for ApiError {
    fn from(failure: shared::platform::redis::RedisFailure) -> Self {
        Self::unavailable(failure)
    }
}

impl From<&DbError> for ApiError {
    /// 503 if nothing was changed and trying again can help, 504 if the outcome is unknown, and 500 for everything else.
    fn from(error: &DbError) -> Self {
        match error {
            DbError::Unavailable(_) | DbError::Busy(_) => Self::unavailable(error.to_string()),
            DbError::Lost(_) => Self::unknown_outcome(error.to_string()),
            DbError::Refused(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        Self::from(&error)
    }
}
