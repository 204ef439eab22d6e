//! What the tests of tenants have in common.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Session, TestApp};

pub(crate) const TENANTS: &str = "/api/v1/admin/tenants";

/// The path of a tenant.
pub(crate) fn tenant_path(id: i64) -> String {
    format!("{TENANTS}/{id}")
}

impl TestApp {
    /// Logs an operator of the default tenant in.
    pub(crate) async fn login_operator(&self) -> Session {
        self.login_as(&json!({"customer_id": 900, "role": "operator"})).await
    }

    /// Logs a customer of a tenant in.
    pub(crate) async fn login_in(&self, tenant: i64, customer_id: i64) -> Session {
        self.login_as(&json!({"customer_id": customer_id, "tenant": tenant})).await
    }

    /// Creates a tenant with this slug, and gives its number.
    pub(crate) async fn create_tenant(&self, slug: &str) -> i64 {
        let operator = self.login_operator().await;
        operator.create_tenant(&json!({"slug": slug, "name": slug})).await
    }
}

impl Session {
    /// Creates a tenant, and gives its number.
    pub(crate) async fn create_tenant(&self, body: &Value) -> i64 {
        let created = self.post(TENANTS, body).await.expect(StatusCode::CREATED);
        created.json["id"].as_i64().expect("a number")
    }

    /// Changes a tenant.
    pub(crate) async fn change_tenant(&self, id: i64, body: &Value) -> Answer {
        self.patch(&tenant_path(id), body).await
    }

    /// Suspends a tenant.
    pub(crate) async fn suspend(&self, id: i64) {
        self.change_tenant(id, &json!({"suspended": true})).await.expect(StatusCode::OK);
    }
}
