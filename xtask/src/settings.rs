//! `.data/env`, where a running system records its addresses, and the secret that signs tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rand::distr::{Alphanumeric, SampleString};
use testbed::paths;

/// Some 380 random bits.
const SECRET_LENGTH: usize = 64;

/// The variables of `.data/env`, in the order of their names.
pub(crate) type Variables = BTreeMap<String, String>;

/// The file that a running system writes and that a shell can `source`.
pub(crate) fn file() -> PathBuf {
    paths::data().join("env")
}

/// What the last `up` wrote; empty if there was none.
pub(crate) fn read_variables() -> Variables {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Records the addresses of the system for shells and the other commands.
pub(crate) fn write_variables(variables: &Variables) -> anyhow::Result<()> {
    let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    write_private(&file(), &lines.concat())
}

/// The address of a server that was not started here, from the environment. What `up` itself wrote is ignored, as a shell
/// that has sourced `.data/env` must not keep the next `up` from starting its own servers.
pub(crate) fn foreign_server(name: &str) -> Option<String> {
    testbed::setting(name).filter(|value| read_variables().get(name) != Some(value))
}

/// An address of the running system: from the environment, else as `up` wrote it.
pub(crate) fn running_system(name: &str) -> anyhow::Result<String> {
    testbed::setting(name).or_else(|| read_variables().remove(name)).with_context(|| {
        format!("no system is known here: start it by `cargo xtask up`, or set {name} to one that runs")
    })
}

/// The key that signs tokens: from the environment, else made once and kept, so that tokens survive a restart.
pub(crate) fn jwt_secret() -> anyhow::Result<String> {
    if let Some(secret) = testbed::setting("JWT_SECRET") {
        return Ok(secret);
    }
    let path = paths::data().join("jwt-secret");
    if let Ok(secret) = fs::read_to_string(&path) {
        return Ok(secret.trim().to_owned());
    }
    let secret = Alphanumeric.sample_string(&mut rand::rng(), SECRET_LENGTH);
    write_private(&path, &secret)?;
    Ok(secret)
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}
