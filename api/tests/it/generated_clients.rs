//! The OpenAPI document is good enough to generate clients from: one in TypeScript and one in Python, each type-checked or
//! imported as its generator wrote it, create, change and read an order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::support::TestApp;

/// A folder of one test's own with the API's document, and the programs that were installed for it.
struct Workshop {
    app: TestApp,
    token: String,
    sources: PathBuf,
    programs: PathBuf,
    folder: PathBuf,
}

impl Workshop {
    async fn open(language: &str) -> Self {
        let sources = testbed::paths::workspace().join("api/tests/generated_clients");
        let instead = "run `cargo xtask test --without-python`";
        let environment =
            testbed::python::environment("Client-generators", &sources.join("requirements.txt"), instead)
                .await;
        let environment = environment.unwrap_or_else(|error| panic!("{error:#}"));
        let app = TestApp::start().await;
        let token = app.login(1).await.access;
        let folder = environment.join(language);
        let _absent = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        let document = app.get("/openapi.json").await.bytes;
        fs::write(folder.join("openapi.json"), document).expect("the document");
        Self { app, token, sources, programs: environment.join("bin"), folder }
    }

    fn copy(&self, files: &[&str]) {
        for file in files {
            fs::copy(self.sources.join(file), self.folder.join(file)).expect("a copy");
        }
    }

    /// Runs a program in the folder, with the installed programs first on the `PATH`, and returns what it printed.
    async fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> String {
        let path = format!("{}:{}", self.programs.display(), testbed::setting("PATH").unwrap_or_default());
        let command = format!("{} {}", program.as_ref().display(), arguments.join(" "));
        let output = Command::new(program.as_ref())
            .args(arguments)
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("API_URL", self.app.url(""))
            .env("API_TOKEN", &self.token)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {printed}");
        printed.into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_typescript_client_compiles_and_works() {
    let workshop = Workshop::open("typescript").await;
    workshop.copy(&["package.json", "package-lock.json", "tsconfig.json", "orders.ts"]);
    workshop.run(workshop.programs.join("npm"), &["ci", "--no-audit", "--no-fund"]).await;
    let tool = |name| workshop.folder.join("node_modules/.bin").join(name);
    workshop.run(tool("openapi-typescript"), &["openapi.json", "--output", "api.ts"]).await;
    workshop.run(tool("tsc"), &[]).await;
    let printed = workshop.run(workshop.programs.join("node"), &["orders.ts"]).await;
    assert!(printed.contains("created, changed and read an order"), "{printed}");
    workshop.app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_python_client_works() {
    let workshop = Workshop::open("python").await;
    workshop.copy(&["orders.py", "openapi-python-client.yml"]);
    let generate = [
        "generate",
        "--path=openapi.json",
        "--output-path=orders_client",
        "--meta=none",
        "--config=openapi-python-client.yml",
        "--fail-on-warning",
    ];
    workshop.run(workshop.programs.join("openapi-python-client"), &generate).await;
    let printed = workshop.run(workshop.programs.join("python"), &["orders.py"]).await;
    assert!(printed.contains("created, changed and read an order"), "{printed}");
    workshop.app.drain().await;
}
