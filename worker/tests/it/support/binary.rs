//! The worker as a process.

use std::process::Stdio;

use testbed::{Program, ProgramBuilder};

use super::World;

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Asserts success and returns the output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// Runs a command with nothing in its environment but what is given.
pub(crate) async fn worker_with(env: &[(&str, &str)], args: &[&str]) -> Said {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the worker can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl World {
    /// Runs a command on these servers.
    pub(crate) async fn worker(&self, args: &[&str]) -> Said {
        worker_with(&[("DATABASE_URL", self.database.url()), ("REDIS_URL", self.redis.url())], args).await
    }

    /// `worker run` on these servers, with the address of its health and metrics; not yet ready.
    pub(crate) fn running(&self) -> (ProgramBuilder, String) {
        let address = format!("127.0.0.1:{}", testbed::free_port());
        let program = Program::builder("worker")
            .env("DATABASE_URL", self.database.url())
            .env("REDIS_URL", self.redis.url())
            .env("METRICS_ADDR", &address);
        (program, format!("http://{address}"))
    }

    /// `worker run` on these servers, ready.
    pub(crate) async fn run(&self) -> Program {
        let (program, address) = self.running();
        let mut program = program.spawn();
        program.wait_ready(&format!("{address}/health/ready")).await;
        program
    }
}
