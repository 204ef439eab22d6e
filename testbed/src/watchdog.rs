//! Ends our child processes when this process ends, in whatever way.
//!
//! A process that is killed with SIGKILL cannot stop its children, and a test or a `cargo xtask up` that leaves a
//! PostgreSQL behind spoils the next one. So the first child gets a small shell beside it that reads from a pipe
//! which only this process holds open: when the pipe ends, it stops whatever is still registered, the newest first.
//! (Linux' parent-death signal does not do: it fires when the *thread* ends that started the child.)

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// `+ GROUP SIGNAL` registers, `- GROUP` forgets; at the very end, `c` names a container and `d` a folder to remove.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups= containers= folders=
while read -r what one two; do
  case $what in
    +) groups="$one:$two $groups" ;;
    -) rest=; for entry in $groups; do [ "${entry%%:*}" = "$one" ] || rest="$rest$entry "; done; groups=$rest ;;
    c) containers="$containers $one" ;;
    d) folders="$folders$one
" ;;
  esac
done
for entry in $groups; do
  group=${entry%%:*}
  kill -s "${entry#*:}" -- "-$group" && kill -s CONT -- "-$group"
  tries=0
  while kill -s 0 -- "-$group" && [ $tries -lt 150 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -s KILL -- "-$group"
done
[ -z "$containers" ] || docker rm --force $containers
IFS='
'
for folder in $folders; do rm -rf -- "$folder"; done
"#;

static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Starts the watchdog now, and lets it share a file with us: a lock on it is then held until all children are gone.
pub fn start(shared: File) -> anyhow::Result<()> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    *pipe = Some(spawn(shared.into())?);
    Ok(())
}

/// Has this process group ended by `signal` (as `kill -s` names it) when we die.
pub(crate) fn register(group: u32, signal: &str) -> anyhow::Result<()> {
    send_line(&format!("+ {group} {signal}\n"))
}

/// The process group has ended, and its number can be reused.
pub(crate) fn forget(group: u32) {
    // If the watchdog is gone, there is nothing to send.
    let _gone = send_line(&format!("- {group}\n"));
}

/// Has this folder removed after we and our children have ended.
pub fn remove_at_end(folder: &Path) -> anyhow::Result<()> {
    send_line(&format!("d {}\n", folder.display()))
}

/// Has this Docker container removed after we have ended.
pub(crate) fn remove_container_at_end(id: &str) -> anyhow::Result<()> {
    send_line(&format!("c {id}\n"))
}

fn send_line(line: &str) -> anyhow::Result<()> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    let stdin = match pipe.as_mut() {
        Some(stdin) => stdin,
        None => pipe.insert(spawn(Stdio::null())?),
    };
    stdin.write_all(line.as_bytes()).context("the watchdog of the child processes has ended")
}

fn spawn(stdout: Stdio) -> anyhow::Result<ChildStdin> {
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT])
        // Its own group: neither Ctrl-C nor the end of a test's group reaches it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .context("cannot start sh as watchdog of the child processes")?;
    child.stdin.take().context("the watchdog has no pipe")
}
