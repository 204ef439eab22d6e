//! What every operation has in common, so that no endpoint has to repeat it: the answers that the frame around the
//! handlers gives, and the headers of every answer.

use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    Type,
    path::{Operation, ParameterIn, PathItem},
};

use crate::http::error::{ApiError, Code};

/// The answers of the frame, by the name under which they stand in the document.
const ANSWERS: [(Code, &str, &str, Applies); 11] = [
    (Code::MalformedRequest, "MalformedRequest", "the body is not valid JSON", Applies::WithSyntax),
    (Code::Unauthenticated, "Unauthenticated", "a bearer token is required", Applies::Secured),
    (Code::RequestTimeout, "RequestTimeout", "the body was not sent within 5 s", Applies::WithBody),
    (Code::PayloadTooLarge, "PayloadTooLarge", "the body may have at most 262144 bytes", Applies::WithBody),
    (
        Code::UnsupportedMediaType,
        "UnsupportedMediaType",
        "the body must be application/json",
        Applies::WithBody,
    ),
    (Code::ValidationFailed, "ValidationFailed", "2 fields are invalid", Applies::WithInput),
    (Code::RateLimited, "RateLimited", "more than 1000 requests in 60 s", Applies::Always),
    (Code::InternalError, "InternalError", "something went wrong on our side", Applies::Always),
    (
        Code::NotImplemented,
        "NotImplemented",
        "no Transfer-Encoding is supported but chunked",
        Applies::WithBody,
    ),
    (
        Code::Unavailable,
        "Unavailable",
        "a service this depends on is not available; try again in a moment",
        Applies::Always,
    ),
    (Code::Timeout, "Timeout", "the request took more than 10 s", Applies::Always),
];

/// Which operations may give an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Applies {
    Always,
    Secured,
    WithBody,
    /// Bodies and headers have a syntax of their own.
    WithSyntax,
    /// Bodies and queries have fields.
    WithInput,
}

/// Adds the common answers and headers.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    for (code, name, detail, _) in ANSWERS {
        components.responses.insert(name.to_owned(), RefOr::T(answer(code, detail)));
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (code, name, _, applies) in ANSWERS {
                if applies.to(operation) {
                    let status = code.parts().0.as_u16().to_string();
                    let answer = RefOr::Ref(Ref::from_response_name(name));
                    operation.responses.responses.entry(status).or_insert(answer);
                }
            }
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    add_request_id(response);
                }
            }
        }
    }
    document
}

impl Applies {
    fn to(self, operation: &Operation) -> bool {
        let has_body = operation.request_body.is_some();
        let has = |place: ParameterIn| {
            let mut parameters = operation.parameters.iter().flatten();
            parameters
                .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == place))
        };
        match self {
            Self::Always => true,
            // The document as a whole asks for a token; what does not says so.
            Self::Secured => operation.security.is_none(),
            Self::WithBody => has_body,
            Self::WithSyntax => has_body || has(ParameterIn::Header),
            Self::WithInput => has_body || has(ParameterIn::Query),
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// A problem document with an example.
fn answer(code: Code, detail: &str) -> Response {
    let (_, _, title) = code.parts();
    let mut problem = ApiError::new(code, detail).problem();
    "/api/v1/orders".clone_into(&mut problem.instance);
    "0197f3a0-5c1e-7d3a-9f00-3b6f6f1c2a10".clone_into(&mut problem.request_id);
    let example = serde_json::to_value(&problem).ok();
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).example(example).build();
    let mut response =
        ResponseBuilder::new().description(title).content("application/problem+json", content).build();
    add_request_id(&mut response);
    match code {
        Code::Unauthenticated => {
            add(
                &mut response,
                "WWW-Authenticate",
                text("Which token is asked for, and what is wrong with this one"),
            );
        }
        Code::RateLimited => {
            add(&mut response, "Retry-After", seconds("Wait this long before the next request"));
            add(
                &mut response,
                "RateLimit",
                text("How much is left of each quota, and when it is whole again"),
            );
            add(&mut response, "RateLimit-Policy", text("The quotas"));
        }
        Code::Unavailable => add(&mut response, "Retry-After", seconds("Try again after this long")),
        _ => {}
    }
    response
}

fn add_request_id(response: &mut Response) {
    add(response, "X-Request-Id", text("The request's id: the caller's, where it sent a sane one"));
}

fn add(response: &mut Response, name: &str, header: Header) {
    response.headers.entry(name.to_owned()).or_insert(RefOr::T(header));
}

fn text(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

fn seconds(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
