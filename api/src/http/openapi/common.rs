//! What all operations have in common, so that no endpoint repeats it: the problems that `RequestLayer` and the extractors
//! return, the headers of every response, who may call them, and the header that chooses a tenant.

use axum::http::Method;
use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response,
    ResponseBuilder, Type,
    path::{Operation, ParameterBuilder, ParameterIn, PathItem},
};

use crate::{
    auth::{Action, Role},
    http::{
        auth::action_of,
        error::{ApiError, Code},
    },
};

/// The common problems: code, name in the document, an example of the detail, and the operations that can return it.
const PROBLEMS: [(Code, &str, &str, Operations); 12] = [
    (Code::MalformedRequest, "MalformedRequest", "the body is not valid JSON", Operations::WithSyntax),
    (Code::Unauthenticated, "Unauthenticated", "a bearer token is required", Operations::Secured),
    (Code::Forbidden, "Forbidden", "the role auditor may not change orders", Operations::Secured),
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
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations_of(item) {
            if let Some(action) = action_of(&method, path) {
                describe_access(operation, action);
            }
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

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [
        (Method::GET, get),
        (Method::POST, post),
        (Method::PUT, put),
        (Method::PATCH, patch),
        (Method::DELETE, delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds the roles that may call an operation, as `x-roles`, and the header by which an operator chooses a tenant.
fn describe_access(operation: &mut Operation, action: Action) {
    let roles: Vec<&str> = Role::with_right_to(action).map(Role::as_str).collect();
    operation.extensions.get_or_insert_default().insert("x-roles".to_owned(), roles.into());
    if action == Action::ManageTenants {
        // The tenants themselves belong to none.
        return;
    }
    let schema =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(i32::MAX)).build();
    let tenant = ParameterBuilder::new()
        .name("X-Tenant-Id")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The tenant in which an operator acts: its own if it is left out. Only operators may send it.",
        ))
        .schema(Some(schema))
        .build();
    operation.parameters.get_or_insert_default().push(tenant.into());
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
