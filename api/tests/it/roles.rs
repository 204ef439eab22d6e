//! Which role may do what: the table of rights, seen from outside, over every route.

use api::auth::{Extent, Role, rights::RIGHTS};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    orders_support::{order, path},
    support::{Answer, Session, TestApp, answer},
    tenants_support::TENANTS,
};

/// Every operation that needs a token: method, path, and the roles that the document names.
async fn secured_operations(app: &TestApp) -> Vec<(Method, String, Vec<String>)> {
    let document = app.get("/openapi.json").await.json;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if operation["security"].is_array() {
                assert!(operation["x-roles"].is_null(), "{method} {path} needs no token");
                continue;
            }
            let roles = operation["x-roles"].as_array();
            let roles = roles.unwrap_or_else(|| panic!("{method} {path} is not in the table of routes"));
            let roles = roles.iter().map(|role| role.as_str().expect("a role").to_owned()).collect();
            let method = method.to_uppercase().parse().expect("a method");
            operations.push((method, path.clone(), roles));
        }
    }
    operations
}

async fn login_as(app: &TestApp, role: Role) -> Session {
    app.login_as(&json!({"customer_id": 5, "role": role.as_str()})).await
}

fn is_forbidden(answer: &Answer) -> bool {
    answer.status == StatusCode::FORBIDDEN && answer.json["code"] == "forbidden"
}

#[tokio::test]
async fn every_route_refuses_the_roles_that_the_document_does_not_name_and_no_others() {
    let app = TestApp::start().await;
    let operations = secured_operations(&app).await;
    assert!(operations.len() >= 17, "{operations:?}");
    for role in Role::ALL {
        let session = login_as(&app, role).await;
        for (method, path, roles) in &operations {
            // Neither a body nor an order: who may call is decided before both are looked at.
            let asked = session.request(method.clone(), &path.replace("{id}", "4711"));
            let answered = answer(asked).await;
            let named = roles.iter().any(|named| named == role.as_str());
            assert_eq!(
                is_forbidden(&answered),
                !named,
                "{method} {path} by {}: {}",
                role.as_str(),
                answered.json
            );
        }
    }
}

#[tokio::test]
async fn an_auditor_sees_every_order_of_its_tenant_and_changes_none() {
    let app = TestApp::start().await;
    let id = app.login(7).await.place(&order()).await;
    let auditor = login_as(&app, Role::Auditor).await;
    auditor.get(&path(id)).await.expect(StatusCode::OK);
    assert_eq!(auditor.get("/api/v1/orders?customer_id=7").await.json["total"], 1);
    let page = auditor.get("/api/v1/events").await.expect(StatusCode::OK);
    assert!(page.json["events"].is_array());
    auditor.get("/api/v1/orders/export").await.expect(StatusCode::OK);
    for request in [
        auditor.request(Method::PATCH, &path(id)).json(&json!({"status": "CONFIRMED"})),
        auditor.request(Method::DELETE, &path(id)),
        auditor.request(Method::POST, "/api/v1/orders").json(&order()),
    ] {
        answer(request).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    }
    assert_eq!(auditor.get(&path(id)).await.json["version"], 1);
    // Its own sessions are its own.
    let ended = auditor.request(Method::POST, "/api/v1/auth/logout-all");
    answer(ended).await.expect(StatusCode::NO_CONTENT);
    let others = auditor.post("/api/v1/auth/logout-all", &json!({"customer_id": 7})).await;
    others.expect_problem(StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn an_operator_is_an_admin_of_the_tenant_in_which_it_acts() {
    let app = TestApp::start().await;
    let id = app.login(7).await.place(&order()).await;
    let operator = login_as(&app, Role::Operator).await;
    operator.patch(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    operator.get(TENANTS).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_refused() {
    let app = TestApp::start().await;
    for role in ["root", "Admin", ""] {
        let refused = app.post("/api/v1/auth/login-test", &json!({"customer_id": 5, "role": role})).await;
        let refused = refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(refused.faults(), ["/role invalid_value"], "{role:?}");
    }
}

/// The rows of the table in the security model, as the code has it.
fn documented_rights() -> String {
    let cell = |extent: &Extent| match extent {
        Extent::Nothing => "—",
        Extent::Own => "own",
        Extent::All => "all",
    };
    let head = format!(
        "| may | {} |\n|---|{}",
        Role::ALL.map(Role::as_str).join(" | "),
        "---|".repeat(Role::ALL.len())
    );
    let rows = RIGHTS.iter().map(|(action, extents)| {
        let cells: Vec<&str> = extents.iter().map(cell).collect();
        format!("| {} | {} |", action.in_words(), cells.join(" | "))
    });
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_security_model_has_the_table_of_rights() {
    let model = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SECURITY-MODEL.md"));
    let rights = documented_rights();
    assert!(
        model.expect("the document").contains(&rights),
        "docs/SECURITY-MODEL.md needs this table:\n{rights}"
    );
}

#[tokio::test]
async fn the_document_offers_all_roles_to_the_test_login() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json;
    let roles = Role::ALL.map(|role| Value::from(role.as_str()));
    assert_eq!(document["components"]["schemas"]["Role"]["enum"], Value::from(roles.to_vec()));
}
