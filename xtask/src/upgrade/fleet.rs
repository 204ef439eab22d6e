//! The replicas of the API and the workers, and how they replace each other.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use testbed::{Program, ProgramBuilder, free_port, paths, watchdog};

use super::balancer::Balancer;
use super::faults::Faults;
use super::programs::{self, Programs};
use crate::settings::Variables;
use crate::status::print_status;

const JWT_SECRET: &str = "signs the tokens of both versions during an upgrade";

/// What runs.
#[derive(Debug)]
pub(super) struct Fleet {
    variables: Variables,
    balancer: Arc<Balancer>,
    faults: Arc<Faults>,
    apis: Vec<Member>,
    workers: Vec<Member>,
    /// The working folder of all programs. Nothing lies in it, so no `.env` is read.
    folder: PathBuf,
    logs: PathBuf,
    started: usize,
}

#[derive(Debug)]
struct Member {
    title: String,
    program: Program,
    /// The address of an API.
    url: String,
}

impl Fleet {
    pub(super) fn new(
        variables: Variables,
        balancer: Arc<Balancer>,
        faults: Arc<Faults>,
    ) -> anyhow::Result<Self> {
        let folder = paths::temporary("upgrade")?;
        watchdog::remove_at_end(&folder)?;
        let logs = programs::folder().join("logs").join(std::process::id().to_string());
        print_status(format!("Logs: {}", logs.display()));
        Ok(Self {
            variables,
            balancer,
            faults,
            apis: Vec::new(),
            workers: Vec::new(),
            folder,
            logs,
            started: 0,
        })
    }

    /// `api migrate` of this version.
    pub(super) async fn migrate(&mut self, programs: &Programs) -> anyhow::Result<()> {
        let migrate = self.configure(programs, "api", "migrate").arg("migrate");
        migrate.run().await.with_context(|| format!("api migrate, {}", programs.title))?;
        print_status(format!("     api migrate, {}", programs.title));
        Ok(())
    }

    /// `worker verify` of this version.
    pub(super) async fn verify(&mut self, programs: &Programs) {
        let verify = self.configure(programs, "worker", "verify").arg("verify");
        match verify.run().await {
            Ok(()) => print_status(format!("     worker verify, {}: no difference", programs.title)),
            Err(error) => self.faults.report(&format!("worker verify, {}: {error:#}", programs.title)),
        }
    }

    /// Starts as many APIs and workers.
    pub(super) async fn start(&mut self, programs: &Programs, replicas: usize) -> anyhow::Result<()> {
        for _ in 0..replicas {
            let worker = self.start_worker(programs).await?;
            self.workers.push(worker);
            let api = self.start_api(programs).await?;
            self.apis.push(api);
        }
        Ok(())
    }

    /// Starts a worker beside the others, then stops the one that it replaces.
    pub(super) async fn replace_worker(&mut self, number: usize, programs: &Programs) -> anyhow::Result<()> {
        let worker = self.start_worker(programs).await?;
        let replaced = std::mem::replace(&mut self.workers[number], worker);
        self.stop_member(replaced).await
    }

    /// Starts an API beside the others, then stops the one that it replaces.
    pub(super) async fn replace_api(&mut self, number: usize, programs: &Programs) -> anyhow::Result<()> {
        let api = self.start_api(programs).await?;
        let replaced = std::mem::replace(&mut self.apis[number], api);
        self.stop_member(replaced).await
    }

    /// Stops everything. The logs stay if there was a fault.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let members: Vec<Member> = self.apis.drain(..).chain(self.workers.drain(..)).collect();
        for member in members {
            self.stop_member(member).await?;
        }
        if self.faults.is_empty() {
            fs::remove_dir_all(&self.logs)?;
        }
        Ok(())
    }

    async fn start_api(&mut self, programs: &Programs) -> anyhow::Result<Member> {
        let (port, metrics) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let builder = self
            .configure(programs, "api", "api")
            .arg("serve")
            .env("HOST", "127.0.0.1")
            .env("PORT", port)
            .env("METRICS_ADDR", &metrics)
            .env("JWT_SECRET", JWT_SECRET);
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/api/v1/health/ready");
        let member = start_member(format!("API, {}", programs.title), builder, url, &ready).await?;
        self.balancer.add(&member.url, format!("http://{metrics}/metrics"));
        Ok(member)
    }

    async fn start_worker(&mut self, programs: &Programs) -> anyhow::Result<Member> {
        let metrics = format!("127.0.0.1:{}", free_port());
        let builder = self.configure(programs, "worker", "worker").arg("run").env("METRICS_ADDR", &metrics);
        let ready = format!("http://{metrics}/health/ready");
        start_member(format!("worker, {}", programs.title), builder, String::new(), &ready).await
    }

    /// SIGTERM. Clients are sent there until it has ended, which is worse than what a proxy does.
    async fn stop_member(&self, mut member: Member) -> anyhow::Result<()> {
        if let Some(status) = member.program.ended() {
            self.faults.report(&format!("{} ended by itself ({status})", member.title));
        } else {
            let log = member.program.last_line();
            let status = member.program.stop().await.with_context(|| member.title.clone())?;
            if !status.success() {
                self.faults.report(&format!("{} ended with {status}: {log}", member.title));
            }
            print_status(format!("     {} has stopped", member.title));
        }
        self.balancer.remove(&member.url);
        Ok(())
    }

    fn configure(&mut self, programs: &Programs, program: &str, purpose: &str) -> ProgramBuilder {
        self.started += 1;
        let log = self.logs.join(format!("{:02}-{purpose}-{}.log", self.started, programs.name));
        Program::at(&programs.path(program), &log, &self.folder)
            .clear_env()
            .envs(&self.variables)
            .env("TOKIO_WORKER_THREADS", testbed::threads_beside_servers())
            .env("DEBUG", "true")
    }
}

async fn start_member(
    title: String,
    builder: ProgramBuilder,
    url: String,
    ready: &str,
) -> anyhow::Result<Member> {
    let mut program = builder.start()?;
    program.ready(ready).await.with_context(|| title.clone())?;
    print_status(format!("     {title} is ready"));
    Ok(Member { title, program, url })
}
