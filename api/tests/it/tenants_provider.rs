//! The tenant of an identity provider's tokens: a setting decides it, and no token.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use time::macros::datetime;

use crate::{
    auth_provider::{Key, Provider, with},
    orders_support::{order, path},
    support::{Answer, TestApp, answer},
    tenants_support::TENANTS,
};

fn clock() -> Clock {
    Clock::manual(datetime!(2025-01-20 10:00 UTC))
}

/// An API whose provider has the tenant with this name, another tenant, and the provider's key.
async fn start(name: Option<&str>) -> (TestApp, i64, Key) {
    let key = Key::ed("d");
    let provider = Provider::start(vec![key.public.clone()]).await;
    let options = provider.options(&clock());
    let app = match name {
        Some(name) => options.set("JWT_TENANT", name).start().await,
        None => options.start().await,
    };
    let tenant = app.create_tenant("shop").await;
    (app, tenant, key)
}

async fn ask(app: &TestApp, path: &str, key: &Key, changes: &Value) -> Answer {
    answer(app.request(Method::GET, path).bearer_auth(key.sign(&with(&clock(), changes)))).await
}

#[tokio::test]
async fn the_setting_names_the_tenant_by_its_slug() {
    let (app, tenant, key) = start(Some("shop")).await;
    let orders = "/api/v1/orders";
    for claim in [
        json!({}),
        json!({"tenant": null}),
        json!({"tenant": tenant}),
        json!({"tenant": "shop"}),
        json!({"tenant": tenant.to_string()}),
    ] {
        ask(&app, orders, &key, &claim).await.expect(StatusCode::OK);
    }
    for claim in [
        json!(1),
        json!("default"),
        json!("1"),
        json!(4711),
        json!("Shop"),
        json!(""),
        json!([tenant]),
        json!({"id": tenant}),
        json!(1.5),
    ] {
        let refused = ask(&app, orders, &key, &json!({"tenant": claim})).await;
        refused.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let operator = app.login_operator().await;
    operator.suspend(tenant).await;
    ask(&app, orders, &key, &json!({})).await.expect_problem(StatusCode::FORBIDDEN, "tenant_suspended");
    // A new slug is a new name: the setting leads nowhere now.
    operator.change_tenant(tenant, &json!({"slug": "store"})).await.expect(StatusCode::OK);
    ask(&app, orders, &key, &json!({})).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn without_the_setting_it_is_the_default_tenant() {
    let (app, tenant, key) = start(None).await;
    let id = app.login(77).await.place(&order()).await;
    for claim in [json!({}), json!({"tenant": 1}), json!({"tenant": "default"})] {
        ask(&app, &path(id), &key, &claim).await.expect(StatusCode::OK);
    }
    for claim in [json!(tenant), json!("shop")] {
        let refused = ask(&app, &path(id), &key, &json!({"tenant": claim})).await;
        refused.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
}

#[tokio::test]
async fn a_setting_that_names_no_tenant_lets_nobody_in_until_there_is_one() {
    let (app, _, key) = start(Some("later")).await;
    let refused = ask(&app, "/api/v1/orders", &key, &json!({})).await;
    refused.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    app.create_tenant("later").await;
    ask(&app, "/api/v1/orders", &key, &json!({})).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_provider_makes_customers_auditors_and_admins_and_never_operators() {
    let (app, tenant, key) = start(None).await;
    let id = app.login(7).await.place(&order()).await;
    for (role, sees, changes) in [
        ("customer", false, true),
        ("auditor", true, false),
        ("admin", true, true),
        ("operator", false, true),
        ("root", false, true),
    ] {
        let claims = json!({"sub": "5", "role": role});
        let seen = ask(&app, &path(id), &key, &claims).await.status;
        assert_eq!(seen == StatusCode::OK, sees, "{role}");
        let token = key.sign(&with(&clock(), &claims));
        let changed =
            answer(app.request(Method::DELETE, "/api/v1/orders/4711").bearer_auth(&token)).await.status;
        assert_eq!(changed == StatusCode::NOT_FOUND, changes, "{role}");
        ask(&app, TENANTS, &key, &claims).await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
        let elsewhere = app.request(Method::GET, "/api/v1/orders").bearer_auth(&token);
        let elsewhere = answer(elsewhere.header("x-tenant-id", tenant.to_string())).await;
        elsewhere.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    }
}
