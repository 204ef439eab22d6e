//! What all operations have in common, so that no endpoint repeats it: the problems that `RequestLayer` and the extractors
//! return, and the headers of every response.

use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    Type,
    path::{Operation, ParameterIn, PathItem},
};

use crate::http::error::{ApiError, Code};

/// The common problems: code, name in the document, an example of the detail, and the operations that can return it.
const PROBLEMS: [(Code, &str, &str, Operations); 11] = [
    (Code::MalformedRequest, "MalformedRequest", "the body is not valid JSON", Operations::WithSyntax),
    (Code::Unauthenticated, "Unauthenticated", "a bearer token is required", Operations::Secured),
    (Code::RequestTimeout, "RequestTimeout", "the body was not sent within 5 s", Operations::WithBody),
    (
        Code::PayloadTooLarge,
        "PayloadTooLarge",
        "the body may have at most 262144 bytes",
        Operations::WithBody,
    ),
    (
        Code::UnsupportedMediaType,
        "UnsupportedMediaType",
        "the body must be application/json",
        Operations::WithBody,
    ),
    (Code::ValidationFailed, "ValidationFailed", "2 fields are invalid", Operations::WithInput),
    (Code::RateLimited, "RateLimited", "more than 1000 requests in 60 s", Operations::All),
    (Code::InternalError, "InternalError", "something went wrong on our side", Operations::All),
    (
        Code::NotImplemented,
        "NotImplemented",
        "no Transfer-Encoding is supported but chunked",
        Operations::WithBody,
    ),
    (
        Code::Unavailable,
        "Unavailable",
        "a service this depends on is not available; try again in a moment",
        Operations::All,
    ),
    (Code::Timeout, "Timeout", "the request took more than 10 s", Operations::All),
];

/// The operations that can return a problem.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operations {
    All,
    Secured,
    WithBody,
    /// Bodies and headers have a syntax of their own.
    WithSyntax,
    /// Bodies and queries have fields.
    WithInput,
}

/// Adds the common problems and headers.
pub(super) fn add_common_parts(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    for (code, name, detail, _) in PROBLEMS {
        components.responses.insert(name.to_owned(), RefOr::T(problem_response(code, detail)));
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations_of(item) {
            for (code, name, _, operations) in PROBLEMS {
                if operations.include(operation) {
                    let status = code.parts().0.as_u16().to_string();
                    let response = RefOr::Ref(Ref::from_response_name(name));
                    operation.responses.responses.entry(status).or_insert(response);
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

impl Operations {
    fn include(self, operation: &Operation) -> bool {
        let has_body = operation.request_body.is_some();
        let has = |place: ParameterIn| {
            let mut parameters = operation.parameters.iter().flatten();
            parameters
                .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == place))
        };
        match self {
            Self::All => true,
            // The document requires a token; operations that do not need one say so.
            Self::Secured => operation.security.is_none(),
            Self::WithBody => has_body,
            Self::WithSyntax => has_body || has(ParameterIn::Header),
            Self::WithInput => has_body || has(ParameterIn::Query),
        }
    }
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// The response of a problem, with an example.
fn problem_response(code: Code, detail: &str) -> Response {
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
            add_header(
                &mut response,
                "WWW-Authenticate",
                text_header("Which token is needed, and what is wrong with this one"),
            );
        }
        Code::RateLimited => {
            add_header(
                &mut response,
                "Retry-After",
                seconds_header("Wait this long before the next request"),
            );
            add_header(
                &mut response,
                "RateLimit",
                text_header("How much is left of each quota, and when it is whole again"),
            );
            add_header(&mut response, "RateLimit-Policy", text_header("The quotas"));
        }
        Code::Unavailable => {
            add_header(&mut response, "Retry-After", seconds_header("Try again after this long"));
        }
        _ => {}
    }
    response
}

fn add_request_id(response: &mut Response) {
    add_header(
        response,
        "X-Request-Id",
        text_header("The request's id: the caller's, if it sent a valid one"),
    );
}

fn add_header(response: &mut Response, name: &str, header: Header) {
    response.headers.entry(name.to_owned()).or_insert(RefOr::T(header));
}

fn text_header(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

fn seconds_header(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
