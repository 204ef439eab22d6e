//! The roles of callers.

/// What a caller is. What it may do is in [`rights`](super::rights).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and changes only its own orders.
    Customer,
    /// Sees everything of its tenant, and changes nothing.
    Auditor,
    /// Sees and changes everything of its tenant.
    Admin,
    /// An administrator of every tenant, of one in each request, who also manages the tenants.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Customer, Self::Auditor, Self::Admin, Self::Operator];

    /// The name in tokens, bodies and the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("must be customer, auditor, admin or operator")
    }
}
