//! Which role may do what: the one table that the routes, their description and the tests read.

use Extent::{All, Nothing, Own};

use super::Role;

/// What a caller can want to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read orders, alone or in lists, their history, their events, and exports of them.
    ReadOrders,
    /// Place, change and delete orders, one by one, in batches or by an import.
    ChangeOrders,
    /// End every session of a customer.
    EndSessions,
    /// Act in another tenant than that of the token.
    ChooseTenant,
    /// List, create and change tenants.
    ManageTenants,
}

/// How far a right reaches, in the tenant in which the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// The action is refused.
    Nothing,
    /// What belongs to the caller itself.
    Own,
    /// What belongs to anybody.
    All,
}

/// The rights of each role, in the order of [`Role::ALL`].
pub const RIGHTS: [(Action, [Extent; 4]); 5] = [
    //                      customer, auditor, admin, operator
    (Action::ReadOrders, [Own, All, All, All]),
    (Action::ChangeOrders, [Own, Nothing, All, All]),
    (Action::EndSessions, [Own, Own, All, All]),
    (Action::ChooseTenant, [Nothing, Nothing, Nothing, All]),
    (Action::ManageTenants, [Nothing, Nothing, Nothing, All]),
];

impl Role {
    /// How far the role's right to an action reaches.
    pub fn extent(self, action: Action) -> Extent {
        let rights = RIGHTS.iter().find(|(known, _)| *known == action);
        let column = Self::ALL.iter().position(|role| *role == self);
        rights.zip(column).map_or(Nothing, |((_, extents), column)| extents[column])
    }

    /// The roles that may do this, at least to what is their own.
    pub fn with_right_to(action: Action) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |role| role.extent(action) != Nothing)
    }
}

impl Action {
    /// The action in words, as in "may not change orders".
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::ReadOrders => "read orders",
            Self::ChangeOrders => "change orders",
            Self::EndSessions => "end sessions",
            Self::ChooseTenant => "act in another tenant",
            Self::ManageTenants => "manage tenants",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operators_reach_beyond_their_tenant() {
        for action in [Action::ChooseTenant, Action::ManageTenants] {
            assert_eq!(Role::with_right_to(action).collect::<Vec<_>>(), [Role::Operator]);
        }
    }

    /// What is its own at home would be somebody else's in another tenant.
    #[test]
    fn whoever_acts_in_another_tenant_has_a_right_to_all_there() {
        for role in Role::with_right_to(Action::ChooseTenant) {
            for (action, _) in RIGHTS {
                assert_eq!(role.extent(action), All, "{role:?} {action:?}");
            }
        }
    }

    #[test]
    fn an_auditor_reads_everything_and_changes_no_order() {
        assert_eq!(Role::Auditor.extent(Action::ReadOrders), All);
        assert_eq!(Role::Auditor.extent(Action::ChangeOrders), Nothing);
    }

    #[test]
    fn every_action_stands_in_the_table_once() {
        for (index, (action, _)) in RIGHTS.iter().enumerate() {
            assert!(!RIGHTS[..index].iter().any(|(earlier, _)| earlier == action), "{action:?}");
        }
        assert_eq!(RIGHTS.len(), Action::ManageTenants as usize + 1, "the last action is the last row");
    }
}
