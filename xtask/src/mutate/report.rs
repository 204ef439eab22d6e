//! `docs/notes/mutations.md`: what became of each mutation, and at which revision. Written after each one, so that a run that was
//! ended goes on where it was.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Context;
use testbed::paths;

use super::mutations::Mutation;

/// Where it is, below the root.
const FILE: &str = "docs/notes/mutations.md";

/// The mutations with their results.
pub(super) struct Report {
    rows: Vec<Row>,
    /// That of the sources, with its date.
    revision: String,
}

/// A mutation, and what became of it when it was made last.
struct Row {
    mutation: Mutation,
    result: Option<Finding>,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    shown: String,
    noticed_by: String,
    revision: String,
}

impl Report {
    /// Reads what earlier runs have found of these mutations.
    pub(super) fn load(mutations: Vec<Mutation>) -> anyhow::Result<Self> {
        let text = fs::read_to_string(paths::workspace().join(FILE)).unwrap_or_default();
        let mut found: Vec<Finding> = text.lines().filter_map(Finding::parse).collect();
        let rows = mutations.into_iter().map(|mutation| {
            let file = mutation.file.display().to_string();
            let is_of_it = |row: &Finding| row.file == file && row.shown == mutation.shown();
            // A line can have two mutations, which are alike here.
            let result = found.iter().position(is_of_it).map(|place| found.remove(place));
            Row { mutation, result }
        });
        let rows = rows.collect();
        let output = Command::new("git")
            .args(["log", "-1", "--format=%h of %cs"])
            .current_dir(paths::workspace())
            .output()?;
        let revision = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { rows, revision })
    }

    /// Every mutation, and whether nothing is known of it.
    pub(super) fn mutations(&self) -> impl Iterator<Item = (&Mutation, bool)> {
        self.rows.iter().map(|row| (&row.mutation, row.result.is_none()))
    }

    /// Keeps what became of the mutation with this index, and writes the file.
    pub(super) fn record(&mut self, index: usize, noticed_by: &str) -> anyhow::Result<()> {
        let Row { mutation, result } = &mut self.rows[index];
        *result = Some(Finding {
            file: mutation.file.display().to_string(),
            shown: mutation.shown(),
            noticed_by: noticed_by.to_owned(),
            revision: self.revision.clone(),
        });
        fs::write(paths::workspace().join(FILE), self.text()?).with_context(|| format!("cannot write {FILE}"))
    }

    fn text(&self) -> anyhow::Result<String> {
        let made = self.rows.iter().filter(|row| row.result.is_some()).count();
        let mut text = format!(
            "# Mutations\n\n\
             What keeps tenants apart was taken out, one condition or part of a key at a time, and a test had to fail each time.\n\
             `cargo xtask mutate` does it again and writes this file, `--missing` only for those without a result; `--list` shows them.\n\n\
             {made} of {all} were made, each at the revision that its line names. The test is the first that failed; that of the statements'\n\
             texts, `tenants_queries`, is asked only if no other test of tenants fails.\n\n\
             | place | taken out | noticed by | revision |\n| --- | --- | --- | --- |\n",
            all = self.rows.len(),
        );
        for Row { mutation, result } in &self.rows {
            if let Some(Finding { shown, noticed_by, revision, .. }) = result {
                writeln!(text, "| `{}` | `{shown}` | {noticed_by} | {revision} |", mutation.place())?;
            }
        }
        Ok(text)
    }
}

impl Finding {
    fn parse(line: &str) -> Option<Self> {
        let (place, rest) = line.strip_prefix("| `")?.split_once("` | `")?;
        let (rest, revision) = rest.strip_suffix(" |")?.rsplit_once(" | ")?;
        let (shown, noticed_by) = rest.rsplit_once("` | ")?;
        let (file, _line) = place.rsplit_once(':')?;
        let [file, shown, noticed_by, revision] = [file, shown, noticed_by, revision].map(str::to_owned);
        Some(Self { file, shown, noticed_by, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_and_others_are_not() {
        let line = r"| `a/b.rs:7` | `x.is_some_and(\|y\| y)` | `some::test` | 1a2b of 2026-11-29 |";
        let finding = Finding::parse(line).unwrap();
        let fields = [&finding.file, &finding.shown, &finding.noticed_by, &finding.revision];
        assert_eq!(fields, ["a/b.rs", r"x.is_some_and(\|y\| y)", "`some::test`", "1a2b of 2026-11-29"]);
        for other in ["", "| place | taken out | noticed by | revision |", "| --- | --- | --- | --- |"] {
            assert_eq!(Finding::parse(other), None, "{other}");
        }
    }
}
