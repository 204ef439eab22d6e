//! The machine that was measured: figures mean nothing without it.

use std::process::Command;

/// What it is, in a few words each.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Processor and number of cores.
    pub processor: String,
    /// Main memory.
    pub memory: String,
    /// Operating system.
    pub system: String,
    /// Versions of the servers.
    pub servers: String,
    /// When it was measured.
    pub when: String,
}

impl Machine {
    /// This machine, with the servers that run on it.
    pub fn describe(servers: String) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let model = field("/proc/cpuinfo", "model name")
            .or_else(|| command_output("sysctl", &["-n", "machdep.cpu.brand_string"]))
            .unwrap_or_else(|| "unknown processor".into());
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok().map(|kib| kib / 1024 / 1024))
            .or_else(|| {
                command_output("sysctl", &["-n", "hw.memsize"])?.parse::<u64>().ok().map(|bytes| bytes >> 30)
            });
        Self {
            processor: format!("{model}, {cores} cores"),
            memory: memory.map_or_else(|| "unknown".into(), |gib| format!("{gib} GiB")),
            system: command_output("uname", &["-sr"]).unwrap_or_else(|| std::env::consts::OS.into()),
            servers,
            when: shared::domain::clock::Clock::System.now().date().to_string(),
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let Self { processor, memory, system, servers, when } = self;
        format!("{processor}, {memory} memory, {system}; {servers}; {when}")
    }
}

/// The first value of `name` in a file of `name : value` lines.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn command_output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
