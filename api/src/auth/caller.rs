//! The caller that a verified access token names.

use shared::domain::{order::CustomerId, tenant::TenantId};

/// What a caller is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and changes only its own orders.
    Customer,
    /// Sees and changes all orders.
    Admin,
}

impl Role {
    /// The name in tokens, bodies and the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Customer, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("must be customer or admin")
    }
}

/// The authenticated caller. A handler that takes it as an argument needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Of which tenant.
    pub tenant: TenantId,
    /// Which customer of the tenant.
    pub customer_id: CustomerId,
    /// What it is allowed to do.
    pub role: Role,
}

impl Caller {
    /// Whether the caller is allowed to see and change what belongs to `owner`.
    pub fn may_access(&self, owner: CustomerId) -> bool {
        self.role == Role::Admin || self.customer_id == owner
    }
}
