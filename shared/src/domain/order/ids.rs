//! Identifiers: positive 64-bit integers, one type each, so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::tenant::TenantId;

/// An identifier was not a positive 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a positive 64-bit integer")]
pub struct NotPositive;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "i64", into = "i64")]
        #[schema(value_type = i64, minimum = 1)]
        pub struct $name(i64);

        impl $name {
            /// The highest.
            pub const MAX: Self = Self(i64::MAX);

            /// The number itself, as columns and messages carry it.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = NotPositive;

            fn try_from(id: i64) -> Result<Self, NotPositive> {
                if id > 0 { Ok(Self(id)) } else { Err(NotPositive) }
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// An order.
    OrderId
}
id! {
    /// A line of an order.
    LineId
}
id! {
    /// Who an order belongs to, and who is logged in.
    CustomerId
}
id! {
    /// What a line orders; the catalogue is another system.
    ProductId
}

/// An order as it is asked for: ids are unique over all tenants, but an order is found only with its own tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey {
    /// Which tenant.
    pub tenant: TenantId,
    /// Which order.
    pub id: OrderId,
}

/// A customer: each tenant has customers of its own, and their numbers may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerKey {
    /// Which tenant.
    pub tenant: TenantId,
    /// Which customer of the tenant.
    pub id: CustomerId,
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_default() {
            self.id.fmt(f)
        } else {
            write!(f, "{} of tenant {}", self.id, self.tenant)
        }
    }
}
