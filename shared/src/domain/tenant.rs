//! Tenants: shops that share an installation and never see each other.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tenant. Whoever names none belongs to the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "i32", into = "i32")]
#[schema(value_type = i32, minimum = 1)]
pub struct TenantId(i32);

/// A tenant's number was not a positive 32-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a positive 32-bit integer")]
pub struct NotATenant;

impl TenantId {
    /// The tenant of tokens, events and rows that name none.
    pub const DEFAULT: Self = Self(1);

    /// The number itself, as columns and messages carry it.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// Whether it is the default tenant, which tokens and events do not name.
    pub fn is_default(&self) -> bool {
        *self == Self::DEFAULT
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<i32> for TenantId {
    type Error = NotATenant;

    fn try_from(id: i32) -> Result<Self, NotATenant> {
        if id > 0 { Ok(Self(id)) } else { Err(NotATenant) }
    }
}

impl From<TenantId> for i32 {
    fn from(id: TenantId) -> i32 {
        id.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
