//! What a caller must have a right to for each route that needs a token. A route that is missing here refuses everybody.

use axum::http::Method;

use crate::auth::Action;

/// Method and path of each route that needs a token, and what it does.
const ROUTE_ACTIONS: &[(Method, &str, Action)] = &[
    (Method::GET, "/api/v1/orders", Action::ReadOrders),
    (Method::POST, "/api/v1/orders", Action::ChangeOrders),
    (Method::POST, "/api/v1/orders/batch", Action::ChangeOrders),
    (Method::POST, "/api/v1/orders/import", Action::ChangeOrders),
    (Method::GET, "/api/v1/orders/export", Action::ReadOrders),
    (Method::GET, "/api/v1/orders/{id}", Action::ReadOrders),
    (Method::PUT, "/api/v1/orders/{id}", Action::ChangeOrders),
    (Method::PATCH, "/api/v1/orders/{id}", Action::ChangeOrders),
    (Method::DELETE, "/api/v1/orders/{id}", Action::ChangeOrders),
    (Method::GET, "/api/v1/orders/{id}/history", Action::ReadOrders),
    (Method::GET, "/api/v1/events", Action::ReadOrders),
    (Method::POST, "/api/v1/events/tickets", Action::ReadOrders),
    (Method::POST, "/api/v1/auth/logout-all", Action::EndSessions),
    (Method::GET, "/api/v1/admin/tenants", Action::ManageTenants),
    (Method::POST, "/api/v1/admin/tenants", Action::ManageTenants),
    (Method::GET, "/api/v1/admin/tenants/{id}", Action::ManageTenants),
    (Method::PATCH, "/api/v1/admin/tenants/{id}", Action::ManageTenants),
    (Method::DELETE, "/api/v1/admin/tenants/{id}", Action::ManageTenants),
];

/// What a route does, by its method and its path with the names of its parameters.
pub(in crate::http) fn action_of(method: &Method, path: &str) -> Option<Action> {
    // `HEAD` is `GET` without the body.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTE_ACTIONS.iter().find(|route| route.1 == path && route.0 == *method).map(|route| route.2)
}
