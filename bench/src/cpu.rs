//! Who spends the processors' time: what stands between a figure and its target.
//!
//! Read from `/proc`, so on Linux only; elsewhere nothing is reported.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::number;
use crate::stats::float;

/// Ticks of the clock in `/proc` a second: what Linux reports to every program, whatever the kernel counts in.
const TICKS: f64 = 100.0;

/// The processor time of some programs over the runs of a case.
#[derive(Debug)]
pub struct Costs {
    programs: Vec<(&'static str, u32)>,
    began: BTreeMap<&'static str, u64>,
    ticks: BTreeMap<&'static str, u64>,
    pieces: u64,
}

impl Costs {
    /// Of these programs with all their descendants, and of the load generators that this process starts and ends.
    pub fn of(programs: &[(&'static str, u32)]) -> Self {
        Self { programs: programs.to_vec(), began: BTreeMap::new(), ticks: BTreeMap::new(), pieces: 0 }
    }

    /// A run begins.
    pub fn begin(&mut self) {
        self.began = self.read();
    }

    /// It ended after this many pieces of work.
    pub fn end(&mut self, pieces: u64) {
        for (name, ticks) in self.read() {
            let began = self.began.get(name).copied().unwrap_or_default();
            *self.ticks.entry(name).or_default() += ticks.saturating_sub(began);
        }
        self.pieces += pieces;
    }

    /// What a piece took, as a sentence.
    pub fn note(&self, piece: &str) -> Option<String> {
        let total: u64 = self.ticks.values().sum();
        if total == 0 || self.pieces == 0 {
            return None;
        }
        let micros = |ticks: u64| number(float(ticks) / TICKS * 1e6 / float(self.pieces));
        let mut text = format!("CPU time of {piece}: {} µs", micros(total));
        let mut by_program: Vec<_> = self.ticks.iter().filter(|(_, ticks)| **ticks > 0).collect();
        by_program.sort_by_key(|(_, ticks)| std::cmp::Reverse(**ticks));
        for (at, (name, ticks)) in by_program.into_iter().enumerate() {
            let before = if at == 0 { ", of which" } else { "," };
            let _infallible = write!(text, "{before} {name} {}", micros(*ticks));
        }
        Some(text + ".")
    }

    fn read(&self) -> BTreeMap<&'static str, u64> {
        let all = processes();
        let mut ticks: BTreeMap<&'static str, u64> =
            self.programs.iter().map(|(name, process)| (*name, family(&all, *process))).collect();
        if let Some(me) = all.get(&std::process::id()) {
            ticks.insert("the load generator", me.of_ended_children);
        }
        ticks
    }
}

/// A process in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    own: u64,
    of_ended_children: u64,
}

/// A process with its living descendants, and those that have ended.
fn family(all: &BTreeMap<u32, Process>, process: u32) -> u64 {
    let Some(this) = all.get(&process) else { return 0 };
    let children = all.iter().filter(|(_, child)| child.parent == process);
    this.own + this.of_ended_children + children.map(|(id, _)| family(all, *id)).sum::<u64>()
}

fn processes() -> BTreeMap<u32, Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    folder
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((id, process(&stat)?))
        })
        .collect()
}

/// Reads `/proc/PID/stat` (`proc_pid_stat(5)`). The name, in parentheses, may hold anything.
fn process(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        of_ended_children: number(13)? + number(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_counted_with_all_that_descend_from_it() {
        let stat = "12 (a) b) c) S 1 12 12 0 -1 4194560 100 0 0 0 5 6 70 80 20 0 1 0 100 1000 10 0";
        let read = process(stat).unwrap();
        assert_eq!(read, Process { parent: 1, own: 11, of_ended_children: 150 });
        let child = Process { parent: 12, own: 1000, of_ended_children: 0 };
        let grandchild = Process { parent: 13, own: 10_000, of_ended_children: 0 };
        let stranger = Process { parent: 1, own: 7, of_ended_children: 0 };
        let all = BTreeMap::from([(12, read), (13, child), (14, grandchild), (15, stranger)]);
        assert_eq!(family(&all, 12), 11_161);
        assert_eq!(family(&all, 99), 0);
    }

    #[test]
    fn a_note_tells_the_dearest_first_and_nothing_where_nothing_is_known() {
        let mut costs = Costs::of(&[]);
        assert_eq!(costs.note("a read"), None);
        costs.ticks = BTreeMap::from([("API", 20), ("Redis", 5), ("PostgreSQL", 0)]);
        costs.pieces = 1000;
        assert_eq!(
            costs.note("a read").unwrap(),
            "CPU time of a read: 250 µs, of which API 200, Redis 50.0."
        );
    }
}
