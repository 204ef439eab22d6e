//! A RabbitMQ virtual host for each test.

use anyhow::{Context, ensure};

use crate::http;

/// A virtual host that only this test uses. It is deleted with this value, and its queues with it.
#[derive(Debug)]
pub struct Vhost {
    url: String,
    management_url: String,
    name: String,
}

/// A virtual host on the RabbitMQ server at `TESTBED_AMQP_URL`, made through the management API at
/// `TESTBED_AMQP_MANAGEMENT_URL`.
///
/// # Panics
///
/// When these are not set, or the server cannot be used.
pub async fn rabbitmq() -> Vhost {
    let base = crate::required("TESTBED_AMQP_URL");
    let management_url = crate::required("TESTBED_AMQP_MANAGEMENT_URL");
    create(&base, management_url)
        .await
        .unwrap_or_else(|error| panic!("no RabbitMQ virtual host for this test: {error:#}"))
}

impl Vhost {
    /// For `AMQP_URL` of a program under test.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the virtual host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A call of the management API, such as `GET` of `queues/{vhost}`.
    pub async fn manage(
        &self,
        method: &str,
        path: &str,
        json: Option<&str>,
    ) -> anyhow::Result<http::Response> {
        http::request(method, &format!("{}/api/{path}", self.management_url), &[], json).await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let url = format!("{}/api/vhosts/{}", self.management_url, self.name);
        crate::clean_up(async move { http::request("DELETE", &url, &[], None).await.map(|_| ()) });
    }
}

async fn create(base: &str, management_url: String) -> anyhow::Result<Vhost> {
    let name = format!("test-{}", uuid::Uuid::now_v7().simple());
    let authority = base.find("://").map_or(0, |at| at + 3);
    let server = base[authority..].find('/').map_or(base, |slash| &base[..authority + slash]);
    let url = format!("{server}/{name}");
    let made = http::request("PUT", &format!("{management_url}/api/vhosts/{name}"), &[], None).await?;
    ensure!(made.is_success(), "the management API answers {}: {}", made.status, made.body);
    grant(&management_url, &name).await?;
    Ok(Vhost { url, management_url, name })
}

async fn grant(management_url: &str, vhost: &str) -> anyhow::Result<()> {
    let (user, _) = management_url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once(':'))
        .context("TESTBED_AMQP_MANAGEMENT_URL holds no user")?;
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    let url = format!("{management_url}/api/permissions/{vhost}/{user}");
    let granted = http::request("PUT", &url, &[], Some(all)).await?;
    ensure!(granted.is_success(), "the management API answers {}: {}", granted.status, granted.body);
    Ok(())
}
