//! The caller that a verified access token names.

use shared::domain::{
    order::{CustomerId, CustomerKey, OrderId, OrderKey},
    tenant::TenantId,
};

use super::{
    Role,
    rights::{Action, Extent},
};
use crate::tenants::{TenantError, Tenants};

/// The authenticated caller. A handler that takes it as an argument needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant of its token.
    pub home: TenantId,
    /// In which tenant it acts: at home, unless an operator has chosen another one.
    pub tenant: TenantId,
    /// Which customer it is at home. Elsewhere the number is that of somebody else.
    pub customer_id: CustomerId,
    /// What it is allowed to do.
    pub role: Role,
}

impl Caller {
    /// A caller that acts in the tenant of its token.
    pub const fn at_home(home: TenantId, customer_id: CustomerId, role: Role) -> Self {
        Self { home, tenant: home, customer_id, role }
    }

    /// Who it is, wherever it acts.
    pub const fn identity(&self) -> CustomerKey {
        CustomerKey { tenant: self.home, id: self.customer_id }
    }

    /// Whether it acts in another tenant than that of its token.
    pub fn is_away(&self) -> bool {
        self.tenant != self.home
    }

    /// The tenant of its token, if it acts in another one.
    pub fn home_if_away(&self) -> Option<TenantId> {
        self.is_away().then_some(self.home)
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
            Extent::Own => self.identity() == CustomerKey { tenant: self.tenant, id: owner },
            Extent::All => true,
        }
    }

    /// Whether it is no longer let in, as far as is known: its own tenant is closed, or the one in which it acts is being removed.
    pub fn is_shut_out(&self, tenants: &Tenants) -> bool {
        tenants.is_closed(self.home) || tenants.is_being_removed(self.tenant)
    }

    /// Resolves with the reason when it is no longer let in.
    pub async fn shut_out(&self, tenants: &Tenants) -> TenantError {
        tokio::select! {
            biased;
            () = tenants.closed(self.home) => TenantError::Suspended,
            () = tenants.removal_begun(self.tenant) => TenantError::BeingRemoved,
        }
    }
}
