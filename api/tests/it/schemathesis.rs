//! The API holds what its OpenAPI document says: schemathesis, with all its checks, finds nothing.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::TestApp;

/// Requests made up for each operation and phase; `SCHEMATHESIS_EXAMPLES` asks for more.
const EXAMPLES: &str = "25";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let folder = testbed::paths::workspace().join("api/tests/schemathesis");
    let instead = "run the other tests with `cargo xtask test`'s filter";
    let environment =
        testbed::python::environment("Schemathesis", &folder.join("requirements.txt"), instead).await;
    let environment = environment.unwrap_or_else(|error| panic!("{error:#}"));
    let app = TestApp::start().await;
    // May do everything.
    let operator = app.login_operator().await;
    operator.create_tenant(&json!({"slug": "shop", "name": "Shop"})).await;
    // Something to find under the ids that are tried first.
    for customer_id in 1..=3 {
        let line = json!({"product_id": 1, "quantity": 1, "unit_price": "1.00"});
        operator
            .post(
                "/api/v1/orders",
                &json!({"customer_id": customer_id, "order_date": "2025-01-20", "lines": [line]}),
            )
            .await;
    }

    let run = Command::new(environment.join("bin/schemathesis"))
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(app.url("/openapi.json"))
        .args(["--no-color", "--max-examples"])
        .arg(testbed::setting("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|| EXAMPLES.to_owned()))
        // It keeps notes in the folder it is started in.
        .current_dir(&environment)
        .env("API_TOKEN", &operator.access)
        .env("SCHEMATHESIS_HOOKS", folder.join("hooks.py"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("schemathesis runs");
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{report}{}", String::from_utf8_lossy(&run.stderr));
    assert!(report.contains("Tested: "), "something was tested: {report}");
}
