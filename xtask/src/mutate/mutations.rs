//! What is taken out: every comparison of `tenant_id` in a statement, which becomes one that is always true, and the tenant's part
//! of each key.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::shown_path;

/// The folders with statements, and with functions of the database.
const FOLDERS: [&str; 4] = ["api/src", "worker/src", "shared/src", "migrations"];
/// A comparison, also with a parameter that follows in another piece of the text.
const CONDITION: &str = "tenant_id = ";
/// The same, always true: tenants are positive.
const ALWAYS_TRUE: &str = "tenant_id >= 0 * ";
/// What follows from here on are unit tests.
const TESTS: &str = "#[cfg(test)]";

/// The tenant's part of each key, and what the key is without it: file, text, replacement. Each text stands in its file once.
const KEYS: &[(&str, &str, &str)] = &[
    (
        "shared/src/cache/entry.rs",
        "if order.tenant.is_default() { [\"\"; 2] }",
        "if order.tenant.get() > 0 { [\"\"; 2] }",
    ),
    ("shared/src/domain/event/order_event.rs", "(!self.tenant().is_default()).then(", "false.then("),
    (
        "shared/src/domain/order/mod.rs",
        "CustomerKey { tenant: self.tenant_id,",
        "CustomerKey { tenant: TenantId::DEFAULT,",
    ),
    (
        "shared/src/domain/order/mod.rs",
        "OrderKey { tenant: self.tenant_id,",
        "OrderKey { tenant: TenantId::DEFAULT,",
    ),
    (
        "api/src/auth/caller.rs",
        "CustomerKey { tenant: self.home, id: self.customer_id }",
        "CustomerKey { tenant: TenantId::DEFAULT, id: self.customer_id }",
    ),
    ("api/src/auth/caller.rs", "OrderKey { tenant: self.tenant,", "OrderKey { tenant: TenantId::DEFAULT,"),
    (
        "api/src/db/idempotency.rs",
        "if tenant.is_default() { key.to_owned() }",
        "if tenant.get() > 0 { key.to_owned() }",
    ),
    ("api/src/db/idempotency.rs", "if home != tenant {", "if home.get() == 0 {"),
    ("api/src/auth/caller.rs", "tenants.closed(self.home)", "tenants.closed(self.tenant)"),
    ("api/src/auth/caller.rs", "tenants.is_closed(self.home)", "tenants.is_closed(self.tenant)"),
    ("api/src/http/orders/page_cursor.rs", "if tenant.is_default() {", "if tenant.get() > 0 {"),
    ("api/src/feed/cursor.rs", "scope.tenant.get().to_be_bytes()", "1_i32.to_be_bytes()"),
    ("api/src/feed/event.rs", "event.tenant == Some(scope.tenant)", "event.tenant.is_some()"),
    (
        "api/src/feed/tickets.rs",
        "home.unwrap_or(tenant), tenant,",
        "home.unwrap_or(tenant), tenant: TenantId::DEFAULT,",
    ),
    (
        "api/src/feed/tickets.rs",
        r#"Some(tenant) => format!("ticket:{tenant}:{hash}")"#,
        r#"Some(_) => format!("ticket:{hash}")"#,
    ),
    (
        "api/src/auth/sessions.rs",
        r#"format!("session:{tenant}:{session}")"#,
        r#"format!("session:{session}")"#,
    ),
    ("api/src/auth/tokens.rs", "at_home(self.tenant,", "at_home(TenantId::DEFAULT,"),
    ("api/src/auth/tokens.rs", "tenant: caller.home,", "tenant: TenantId::DEFAULT,"),
    ("api/src/auth/tokens.rs", "if !tenant.is_default()", "if tenant.get() == 0"),
    ("api/src/auth/tokens.rs", "tenant != claims.tenant", "tenant.get() == 0"),
    ("api/src/auth/provider.rs", "if !names_tenant", "if !names_tenant && false"),
    ("api/src/auth/provider.rs", "Ok(Caller::at_home(tenant,", "Ok(Caller::at_home(TenantId::DEFAULT,"),
    ("api/src/limits/limit_key.rs", r#""{tenant}:{customer}""#, r#""{customer}""#),
    (
        "api/src/limits/limit_key.rs",
        r#"Self::Tenant(tenant) => write!(f, "{tenant}")"#,
        r#"Self::Tenant(_) => write!(f, "1")"#,
    ),
    ("api/src/http/auth/caller.rs", "count_customer(caller.home,", "count_customer(TenantId::DEFAULT,"),
    ("api/src/http/auth/caller.rs", "count_tenant(caller.home,", "count_tenant(TenantId::DEFAULT,"),
    ("api/src/http/auth/caller.rs", "require_right(caller, Action::ChooseTenant)?;", ""),
    (
        "api/src/http/auth/login.rs",
        r#"(Some(tenant), _) => format!("{tenant} {email}")"#,
        "(Some(_), _) => email.to_owned()",
    ),
    (
        "api/src/http/auth/logout_all.rs",
        "&state.db, caller.tenant,",
        "&state.db, shared::domain::tenant::TenantId::DEFAULT,",
    ),
    (
        "api/src/auth/accounts.rs",
        "JOIN ended_sessions USING (tenant_id, customer_id)",
        "JOIN (SELECT customer_id, generation FROM ended_sessions) AS ended USING (customer_id)",
    ),
    (
        "worker/src/store/orders.rs",
        "AS wanted (tenant_id, id) USING (tenant_id, id)",
        "AS wanted (other, id) USING (id)",
    ),
];

/// One place in the sources, and what stands there instead.
#[derive(Clone, Debug)]
pub(super) struct Mutation {
    /// Below the root.
    pub(super) file: PathBuf,
    /// Counted from 1.
    line: usize,
    /// Where the text begins in the file.
    at: usize,
    text: String,
    replacement: String,
    /// The line as it was.
    context: String,
}

impl Mutation {
    /// Makes the change in a copy of the sources, and returns what the file was.
    pub(super) fn apply(&self, root: &Path) -> anyhow::Result<String> {
        let path = root.join(&self.file);
        let original =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let end = self.at + self.text.len();
        ensure!(
            original.get(self.at..end) == Some(self.text.as_str()),
            "{self}: the file is not what was committed: commit it first"
        );
        let changed = [&original[..self.at], &self.replacement, &original[end..]].concat();
        fs::write(&path, changed).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(original)
    }

    /// The package whose tests are the nearest: that of the file, and of functions of the database the worker, which calls most.
    pub(super) fn package(&self) -> &'static str {
        let is_in = |folder: &str| self.file.starts_with(folder);
        ["api", "shared"].into_iter().find(|folder| is_in(folder)).unwrap_or("worker")
    }

    /// File and line.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// The line, for a table.
    pub(super) fn shown(&self) -> String {
        self.context.trim().replace('|', "\\|")
    }

    fn new(file: &Path, source: &str, at: usize, text: &str, replacement: &str) -> Self {
        let line = source[..at].matches('\n').count() + 1;
        let context = source.lines().nth(line - 1).unwrap_or_default().to_owned();
        let (text, replacement) = (text.to_owned(), replacement.to_owned());
        Self { file: file.to_owned(), line, at, text, replacement, context }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place(), self.context.trim())
    }
}

/// Finds every mutation, by file and line.
pub(super) fn find_all(root: &Path) -> anyhow::Result<Vec<Mutation>> {
    let mut mutations = Vec::new();
    for folder in FOLDERS {
        let mut files = Vec::new();
        list_files(&root.join(folder), &mut files)?;
        files.sort();
        for path in files {
            let source =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = PathBuf::from(shown_path(root, &path));
            mutations.extend(find_conditions(&file, &source));
        }
    }
    for (file, text, replacement) in KEYS {
        let source = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        ensure!(source.matches(text).count() == 1, "{file} has `{text}` not exactly once: renew KEYS");
        let at = source.find(text).unwrap_or_default();
        mutations.push(Mutation::new(Path::new(file), &source, at, text, replacement));
    }
    Ok(mutations)
}

fn find_conditions(file: &Path, source: &str) -> Vec<Mutation> {
    let end = source.find(TESTS).unwrap_or(source.len());
    let is_assignment = |at: usize| {
        let before = source[..at].trim_end();
        // In a statement, and to a field of the code.
        ["SET", "set", "order."].iter().any(|word| before.ends_with(word))
    };
    source[..end]
        .match_indices(CONDITION)
        .filter(|(at, _)| !is_assignment(*at))
        .map(|(at, _)| Mutation::new(file, source, at, CONDITION, ALWAYS_TRUE))
        .collect()
}

fn list_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_is_found_but_no_assignment_and_nothing_of_the_tests() {
        let source = "a WHERE tenant_id = $1 AND\n  o.tenant_id = i.tenant_id\nSET tenant_id = 2\n#[cfg(test)]\ntenant_id = 3";
        let found = find_conditions(Path::new("x.sql"), source);
        assert_eq!(found.iter().map(Mutation::place).collect::<Vec<_>>(), ["x.sql:1", "x.sql:2"]);
    }

    #[test]
    fn every_key_is_where_it_is_said_to_be() {
        assert!(find_all(&testbed::paths::workspace()).unwrap().len() >= KEYS.len());
    }
}
