//! Compares orders, log and history.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use indicatif::ProgressBar;
use shared::platform::db::{DbPool, within};

use super::{difference::Difference, digest::Digest, findings::Findings};
use crate::{
    commands::connect::acquire_connection,
    store::comparison::{ComparedVersion, compare_versions},
};

/// The limit of waiting for a row. The first one comes when everything is sorted.
const ROW_LIMIT: Duration = Duration::from_hours(1);
/// One statement compares everything. The limit ends with the connection, which is closed afterwards.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '6h'";

/// The digests and the differences of the three.
#[derive(Default)]
struct RecordTotals {
    orders: Digest,
    log: Digest,
    history: Digest,
    /// The history of what the log still has: equal to the log's digest if nothing is missing.
    history_of_log: Digest,
    differences: Vec<Difference>,
}

/// Compares everything by order and version, but for tenants that are being removed.
pub(super) async fn compare_records(
    db: &DbPool,
    only: Option<&[i64]>,
    findings: &mut Findings,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let removing: Vec<i32> = findings.removing.iter().map(|tenant| tenant.get()).collect();
    let mut connection = acquire_connection(db).await?;
    sqlx::raw_sql(STATEMENT_LIMIT).execute(&mut *connection).await?;
    let mut rows = compare_versions(&mut connection, only, &removing);
    let mut totals = RecordTotals::default();
    let mut group: Vec<ComparedVersion> = Vec::new();
    while let Some(row) = within(ROW_LIMIT, rows.try_next()).await? {
        progress.inc(1);
        if group.first().is_some_and(|first| first.order_id != row.order_id) {
            totals.add_order(&group);
            group.clear();
        }
        group.push(row);
    }
    totals.add_order(&group);
    findings.differences.append(&mut totals.differences);
    findings.digests.extend([
        ("orders", totals.orders),
        ("log", totals.log),
        ("history", totals.history),
        ("history of what is logged", totals.history_of_log),
    ]);
    Ok(())
}

impl RecordTotals {
    /// Adds an order: its versions in their order.
    fn add_order(&mut self, versions: &[ComparedVersion]) {
        let Some(first) = versions.first() else { return };
        if let (Some(current), Some(content)) = (first.current, &first.content) {
            let (id, current) = (first.order_id.to_be_bytes(), current.to_be_bytes());
            self.orders.add(&[&id, &current, content.as_bytes()]);
        }
        for row in versions {
            let Some(version) = row.version else { continue };
            let (id, version) = (row.order_id.to_be_bytes(), version.to_be_bytes());
            if let Some(event) = row.logged {
                self.log.add(&[&id, &version, event.as_bytes()]);
            }
            if let Some(event) = row.recorded {
                self.history.add(&[&id, &version, event.as_bytes()]);
                if row.logged.is_some() {
                    self.history_of_log.add(&[&id, &version, event.as_bytes()]);
                }
            }
        }
        find_differences(versions, &mut self.differences);
    }
}

/// Finds what is wrong with one order, given its versions in their order.
fn find_differences(versions: &[ComparedVersion], differences: &mut Vec<Difference>) {
    let Some(first) = versions.first() else { return };
    let (order, current) = (first.order_id, first.current);
    let mut next = 1;
    let mut deleted_by = None;
    for row in versions {
        let Some(version) = row.version else { continue };
        if version < next {
            differences.push(Difference::TwoEvents { order, version });
            continue;
        }
        if version > next {
            differences.push(Difference::Lost { order, first: next, last: version - 1 });
        }
        // No event has the last version of the range, but a damaged row can.
        next = version.saturating_add(1);
        deleted_by = row.deletes.then_some(version);
        if let (Some(event), None) = (row.logged, row.recorded) {
            differences.push(Difference::NotRecorded { order, version, event });
        }
        if let (Some(event), true) = (row.recorded, row.unlogged) {
            differences.push(Difference::NotLogged { order, version, event });
        }
        if let (Some(event), Some(false)) = (row.logged, row.history_agrees) {
            differences.push(Difference::RecordDiffers { order, version, event });
        }
        if row.order_agrees == Some(false) {
            differences.push(Difference::OrderDiffers { order, version });
        }
    }
    let recorded = next - 1;
    match (current, deleted_by) {
        (Some(_), Some(deleted_by)) => differences.push(Difference::NotDeleted { order, deleted_by }),
        (Some(version), None) if version > recorded => {
            differences.push(Difference::Lost { order, first: next, last: version });
        }
        (Some(version), None) if version < recorded => {
            differences.push(Difference::OrderBehind { order, version, recorded });
        }
        (None, None) => differences.push(Difference::OrderMissing { order, recorded }),
        (Some(_), None) | (None, Some(_)) => {}
    }
}
