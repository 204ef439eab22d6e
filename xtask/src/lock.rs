//! One `cargo xtask up` a folder.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use testbed::{paths, watchdog};

use crate::status::print_status;

/// How long the servers of a killed `up` can take to stop.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// Takes the lock on `.data/`, which lasts as long as this process and the servers it starts: the watchdog that
/// stops them when this process is killed shares it. A file left behind therefore means nothing.
pub(crate) async fn acquire() -> anyhow::Result<File> {
    fs::create_dir_all(paths::data()).context("cannot create .data")?;
    let path = paths::data().join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.with_context(|| format!("cannot open {}", path.display()))?;
    let start = Instant::now();
    let mut reported = false;
    while file.try_lock().is_err() {
        let mut owner = String::new();
        file.rewind()?;
        file.read_to_string(&mut owner)?;
        let owner = owner.trim();
        if Path::new("/proc/self").exists()
            && !Path::new("/proc").join(owner).exists()
            && start.elapsed() < STOP_TIMEOUT
        {
            if !reported {
                print_status("The previous `up` was killed; waiting for its servers to stop.");
                reported = true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        bail!("`cargo xtask up` is already running here (process {owner}): stop that one first, with Ctrl-C");
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    watchdog::start(file.try_clone()?)?;
    Ok(file)
}
