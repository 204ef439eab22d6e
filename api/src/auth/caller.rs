//! Who is calling: what a verified access token says.

use shared::order::CustomerId;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and changes only its own orders.
    Customer,
    /// Sees and changes all.
    Admin,
}

/// The authenticated caller. Handlers take it as an argument; where it stands, the route needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub customer_id: CustomerId,
    /// With which rights.
    pub role: Role,
}

impl Caller {
    /// Whether the caller may see and change what belongs to `owner`.
    pub fn may_access(&self, owner: CustomerId) -> bool {
        self.role == Role::Admin || self.customer_id == owner
    }
}
