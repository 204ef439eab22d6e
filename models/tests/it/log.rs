//! The log as it is built.

use models::log::{Design, LogModel, OF_PUBLISHING, OF_SEQUENCING, Order, Scope};

use crate::support::explore;

/// The fewest transactions of which one can be open below another that has ended, with two versions of each order.
const THREE: &[&[Order]] = &[&[Order::A], &[Order::A, Order::B], &[Order::B]];
const TWO: &[&[Order]] = &[&[Order::A], &[Order::A, Order::B]];

#[test]
fn no_order_of_commits_and_steps_skips_an_event_or_gives_a_position_twice() {
    let scope = Scope {
        plans: THREE,
        rollbacks: true,
        statements: 2,
        publishes: false,
        has_program_before: false,
        reads: false,
    };
    explore(LogModel { design: Design::BUILT, scope, properties: OF_SEQUENCING });
}

#[test]
fn statements_left_behind_by_lost_connections_and_leases_change_no_position() {
    let scope = Scope {
        plans: TWO,
        rollbacks: true,
        statements: 3,
        publishes: false,
        has_program_before: false,
        reads: true,
    };
    explore(LogModel { design: Design::BUILT, scope, properties: OF_SEQUENCING });
}

#[test]
fn a_relay_that_is_paused_at_any_step_moves_no_cursor_past_or_back() {
    let scope = Scope {
        plans: THREE,
        rollbacks: false,
        statements: 1,
        publishes: true,
        has_program_before: false,
        reads: true,
    };
    explore(LogModel { design: Design::BUILT, scope, properties: OF_PUBLISHING });
}

#[test]
fn programs_of_the_version_before_that_take_the_lease_meanwhile_leave_nothing_unpublished_and_nothing_out_of_order()
 {
    let scope = Scope {
        plans: THREE,
        rollbacks: false,
        statements: 1,
        publishes: true,
        has_program_before: true,
        reads: false,
    };
    explore(LogModel { design: Design::BUILT, scope, properties: OF_PUBLISHING });
}
