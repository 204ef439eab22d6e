//! Removing what the stream retains of a tenant that is gone: entries stay for a while after every group has acknowledged them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::group::Group;
use crate::{domain::tenant::TenantId, platform::redis::RedisFailure};

/// Entries that are looked at in one step. The largest events take 11 MB together, which come within the limit of a command.
const STEP: usize = 50;

/// The part of an event that says whose it is.
#[derive(Deserialize)]
struct TenantOfEvent {
    #[serde(default)]
    tenantid: Option<String>,
    #[serde(rename = "specversion")]
    _is_an_event: IgnoredAny,
}

/// Removes every entry of a tenant that the stream has when this begins. Returns how many.
pub(super) async fn remove_tenant(group: &Group, tenant: TenantId) -> Result<usize, RedisFailure> {
    let tenant = tenant.to_string();
    let mut removed = 0;
    let mut from = "-".to_owned();
    loop {
        let page = group.range(&from, STEP).await?;
        let Some(last) = page.last() else { return Ok(removed) };
        from = format!("({}", last.id);
        let is_of_tenant = |body: &[u8]| {
            serde_json::from_slice::<TenantOfEvent>(body)
                .is_ok_and(|event| event.tenantid.as_ref() == Some(&tenant))
        };
        let ids: Vec<String> =
            page.into_iter().filter(|entry| is_of_tenant(&entry.body)).map(|entry| entry.id).collect();
        if !ids.is_empty() {
            removed += group.delete(&ids).await?;
        }
    }
}
