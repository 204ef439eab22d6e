//! The caller that a verified access token names.

use shared::domain::{
    order::{CustomerId, CustomerKey, OrderId, OrderKey},
    tenant::TenantId,
};

use super::{
    Role,
    rights::{Action, Extent},
};

/// The authenticated caller. A handler that takes it as an argument needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// In which tenant it acts: that of its token, unless an operator has chosen another one.
    pub tenant: TenantId,
    /// Which customer it is.
    pub customer_id: CustomerId,
    /// What it is allowed to do.
    pub role: Role,
}

impl Caller {
    /// The customer of the tenant.
    pub const fn key(&self) -> CustomerKey {
        CustomerKey { tenant: self.tenant, id: self.customer_id }
    }

    /// What an order of the tenant is found by.
    pub const fn order(&self, id: OrderId) -> OrderKey {
        OrderKey { tenant: self.tenant, id }
    }

    /// How far its right to an action reaches, within its tenant.
    pub fn extent(&self, action: Action) -> Extent {
        self.role.extent(action)
    }

    /// Whether it may see what belongs to `owner`, a customer of its tenant.
    pub fn may_access(&self, owner: CustomerId) -> bool {
        self.may(Action::ReadOrders, owner)
    }

    /// Whether it may do this to what belongs to `owner`, a customer of its tenant.
    pub fn may(&self, action: Action, owner: CustomerId) -> bool {
        match self.extent(action) {
            Extent::Nothing => false,
            Extent::Own => self.customer_id == owner,
            Extent::All => true,
        }
    }
}
