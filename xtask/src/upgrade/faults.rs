//! What went wrong and what was counted, by stage.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::status::print_status;

/// As many are printed one by one.
const PRINTED: usize = 20;

/// Collects faults and figures of all stages.
#[derive(Debug, Default)]
pub(super) struct Faults {
    stages: Mutex<Vec<Stage>>,
}

#[derive(Debug, Default)]
struct Stage {
    name: &'static str,
    requests: u64,
    slowest: Duration,
    /// Attempts that a retry cured, by what was seen.
    retries: BTreeMap<String, u64>,
    faults: usize,
}

impl Faults {
    /// From now on everything belongs to this stage.
    pub(super) fn begin(&self, name: &'static str) {
        print_status(format!("\n== {name}"));
        self.lock().push(Stage { name, ..Stage::default() });
    }

    /// Records something that must not happen.
    pub(super) fn report(&self, fault: &str) {
        let mut stages = self.lock();
        let known: usize = stages.iter().map(|stage| stage.faults).sum();
        if let Some(stage) = stages.last_mut() {
            stage.faults += 1;
            if known < PRINTED {
                print_status(format!("FAULT, {}: {fault}", stage.name));
            }
        }
    }

    /// Counts a request that was answered in the end, with the time from its first attempt.
    pub(super) fn count_request(&self, took: Duration) {
        if let Some(stage) = self.lock().last_mut() {
            stage.requests += 1;
            stage.slowest = stage.slowest.max(took);
        }
    }

    /// Counts an attempt that is repeated.
    pub(super) fn count_retry(&self, seen: String) {
        if let Some(stage) = self.lock().last_mut() {
            *stage.retries.entry(seen).or_default() += 1;
        }
    }

    /// Whether there was none.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().iter().all(|stage| stage.faults == 0)
    }

    /// Prints all stages, and returns success if there was no fault.
    pub(super) fn print_summary(&self, old: &str) -> ExitCode {
        let stages = self.lock();
        print_status(format!(
            "\n{:<14} {:>9} {:>9} {:>9} {:>7}",
            "stage", "requests", "repeated", "slowest", "faults"
        ));
        for stage in stages.iter() {
            let (repeated, slowest) = (stage.retries.values().sum::<u64>(), stage.slowest.as_secs_f32());
            print_status(format!(
                "{:<14} {:>9} {repeated:>9} {slowest:>8.2}s {:>7}",
                stage.name, stage.requests, stage.faults
            ));
            for (seen, count) in &stage.retries {
                print_status(format!("               repeated {count} times: {seen}"));
            }
        }
        let faults: usize = stages.iter().map(|stage| stage.faults).sum();
        if faults > 0 {
            print_status(format!("\nUpgrade from {old}: {faults} faults"));
            return ExitCode::FAILURE;
        }
        print_status(format!("\nUpgrade from {old}, back, and forward again: no fault"));
        ExitCode::SUCCESS
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stage>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
