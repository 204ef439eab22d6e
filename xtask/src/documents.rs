//! `cargo xtask documents`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use testbed::paths;

use crate::status::print_status;
use crate::{cargo, postman};

/// Writes the documents in `docs` anew that are generated from the API.
pub(crate) async fn write_documents() -> anyhow::Result<ExitCode> {
    let status = cargo::run_command(&cargo::in_workspace(&["build", "--bin", "api"])).await?;
    ensure!(status.success(), "the API does not compile, see above");
    let api = cargo::binaries(false)?.join("api");
    let openapi = read_document(&api, "openapi")?;
    let files = [
        ("docs/orders.postman_collection.json", postman::collection(&openapi)),
        ("docs/openapi.json", openapi),
        ("docs/asyncapi.json", read_document(&api, "asyncapi")?),
    ];
    for (name, document) in files {
        let file = paths::workspace().join(name);
        let text = serde_json::to_string_pretty(&document)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        print_status(format!("{name} is written: commit it."));
    }
    Ok(ExitCode::SUCCESS)
}

/// The JSON that a command of the API prints.
fn read_document(api: &Path, command: &str) -> anyhow::Result<Value> {
    let printed = Command::new(api).arg(command).stdin(Stdio::null()).output();
    let printed = printed.with_context(|| format!("cannot run {}", api.display()))?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).context("the document is not JSON")
}
