//! LocalStack's SQS as a child process, without Docker: from Python's package index, in a virtual environment of its own.

use std::path::PathBuf;
use std::time::Duration;

use super::{Probe, Server, Storage, start_on_a_free_port};
use crate::process::Launch;
use crate::{paths, python};

/// Starts a LocalStack that serves SQS. The URL is its endpoint. Its queues are gone with it: this edition keeps
/// nothing.
pub async fn localstack(storage: &Storage) -> anyhow::Result<Server> {
    let environment = prepare_localstack().await?;
    let folder = storage.folder("localstack")?;
    start_on_a_free_port(&folder, |port| {
        let url = format!("http://127.0.0.1:{port}");
        Server {
            title: "LocalStack",
            launch: Launch::new(environment.join("bin/python"), folder.join("log"))
                .args(["-m", "localstack.runtime.main"])
                .folder(&folder)
                .env("SERVICES", "sqs")
                .env("EAGER_SERVICE_LOADING", "1")
                .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
                // Its default server takes the port of that setting and listens on every address.
                .env("GATEWAY_SERVER", "hypercorn")
                .env("DISABLE_EVENTS", "1")
                .env("SKIP_SSL_CERT_DOWNLOAD", "1")
                // Its own name server would want port 53.
                .env("DNS_ADDRESS", "0")
                .env("FILESYSTEM_ROOT", &folder)
                .env("TMPDIR", &folder),
            // Not its health, which is well before the first call of SQS, which may take long.
            probe: Probe::Http(format!("{url}/?Action=ListQueues&Version=2012-11-05")),
            url,
            patience: Duration::from_mins(2),
            process: None.into(),
        }
    })
    .await
}

/// The virtual environment with LocalStack, which is created first if it is missing. That takes a minute or two.
pub async fn prepare_localstack() -> anyhow::Result<PathBuf> {
    let requirements = paths::workspace().join("localstack/requirements.txt");
    python::environment("LocalStack", &requirements, "set TESTBED_SQS_ENDPOINT to an SQS endpoint that runs")
        .await
}
