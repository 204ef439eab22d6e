//! Simpler designs of the log, each with the shortest story of what goes wrong.

use models::log::{
    Design, Epoch,
    LogAction::{
        self, Begin, Commit, CommitStep, Lock, Publish, Read, Save, Send, TakeOver, TakeSnapshot, Write,
    },
    LogModel, NOTHING_IS_SKIPPED, NOTHING_WAITS, OF_SEQUENCING, OVERTAKES_OPEN_TRANSACTIONS, Order,
    POSITIONS_ARE_DENSE, PUBLISHED_MEANS_CONFIRMED, PUBLISHED_MOVES_FORWARD, Positions, READERS_MISS_NOTHING,
    Saving, Scope, Selection, SnapshotTaken, Sorting, VERSIONS_ASCEND,
    Who::{Holder, Paused},
};
use stateright::{Checker as _, Model as _};

use crate::support::{expect_story, explore};

const TWO_ORDERS: &[&[Order]] = &[&[Order::A], &[Order::B]];
const ONE_ORDER_TWICE: &[&[Order]] = &[&[Order::A], &[Order::A]];
const SMALL: Scope = Scope {
    plans: TWO_ORDERS,
    rollbacks: false,
    statements: 1,
    publishes: false,
    has_program_before: false,
    reads: false,
};

/// A whole step of sequencing, by the statement at this place.
const fn step(place: usize) -> [LogAction; 4] {
    [Send(place), Lock(place), TakeSnapshot(place), CommitStep(place)]
}

#[test]
fn reading_beyond_the_last_id_skips_a_transaction_that_commits_late() {
    let design = Design { selection: Selection::IdAboveLast, ..Design::BUILT };
    let ids_are_taken = [Begin(0), Write(0), Begin(1), Write(1)];
    let story = [&ids_are_taken[..], &[Commit(1)], &step(0), &[Commit(0)], &step(0)].concat();
    expect_story(LogModel { design, scope: SMALL, properties: &[NOTHING_IS_SKIPPED] }, &story);
}

#[test]
fn a_reader_that_asks_for_ids_beyond_its_last_one_misses_a_transaction_that_commits_late() {
    let design = Design { positions: Positions::Ids, ..Design::BUILT };
    let scope = Scope { reads: true, ..SMALL };
    let story = [Begin(0), Write(0), Begin(1), Write(1), Commit(1), Read, Commit(0)];
    expect_story(LogModel { design, scope, properties: &[READERS_MISS_NOTHING] }, &story);
}

#[test]
fn ordering_by_transaction_gives_version_2_before_1() {
    let design = Design { sorting: Sorting::ByTransaction, ..Design::BUILT };
    let scope = Scope { plans: ONE_ORDER_TWICE, ..SMALL };
    // The transaction with the lower xid waits for the row lock of the other.
    let locked_late = [Begin(0), Begin(1), Write(1), Commit(1), Write(0), Commit(0)];
    let story = [&locked_late[..], &step(0)].concat();
    expect_story(LogModel { design, scope, properties: &[VERSIONS_ASCEND] }, &story);
}

#[test]
fn waiting_for_the_oldest_transaction_skips_nothing_but_stalls_behind_any_open_one() {
    let design = Design { selection: Selection::BelowOldestOpen, ..Design::BUILT };
    let opened_first = [Begin(0), Begin(1), Write(1), Commit(1)];
    let story = [&opened_first[..], &step(0)].concat();
    expect_story(LogModel { design, scope: SMALL, properties: &[NOTHING_WAITS] }, &story);

    let safe = &[NOTHING_IS_SKIPPED, POSITIONS_ARE_DENSE, VERSIONS_ASCEND];
    explore(LogModel { design, scope: SMALL, properties: safe });
    let overtaking = LogModel { design, scope: SMALL, properties: &[OVERTAKES_OPEN_TRANSACTIONS] };
    let checker = overtaking.checker().spawn_bfs().join();
    assert!(checker.is_done());
    assert!(checker.discovery(OVERTAKES_OPEN_TRANSACTIONS).is_none(), "it never passes an open transaction");
}

#[test]
fn a_snapshot_taken_before_the_lock_moves_the_cursor_back_and_gives_an_event_two_positions() {
    let design = Design { snapshot: SnapshotTaken::BeforeTheLock, ..Design::BUILT };
    let scope = Scope { plans: &[&[Order::A]], statements: 2, ..SMALL };
    // One statement sees nothing, and waits until the other has given the event its position.
    let story = [
        &[Send(0), TakeSnapshot(0), Begin(0), Write(0), Commit(0)][..],
        &[Send(1), TakeSnapshot(1), Lock(1), CommitStep(1)],
        &[Lock(0), CommitStep(0)],
        &[Send(0), TakeSnapshot(0), Lock(0), CommitStep(0)],
    ];
    expect_story(LogModel { design, scope, properties: &[POSITIONS_ARE_DENSE] }, &story.concat());
}

#[test]
fn without_the_epoch_a_relay_that_was_paused_moves_the_published_position_back() {
    let design = Design { epoch: Epoch::Ignored, ..Design::BUILT };
    let scope = Scope { plans: &[&[Order::A, Order::B]], publishes: true, ..SMALL };
    let story = [
        &[Begin(0), Write(0), Write(0), Commit(0)][..],
        &step(0),
        &[Publish(Holder), TakeOver],
        &[Publish(Holder), Publish(Holder), Save(Holder), Save(Paused)],
    ];
    expect_story(LogModel { design, scope, properties: &[PUBLISHED_MOVES_FORWARD] }, &story.concat());
}

#[test]
fn without_the_epoch_positions_are_still_right_because_the_cursor_is_read_under_the_lock() {
    let design = Design { epoch: Epoch::Ignored, ..Design::BUILT };
    let scope = Scope { statements: 2, ..SMALL };
    explore(LogModel { design, scope, properties: OF_SEQUENCING });
}

#[test]
fn saving_a_position_before_the_broker_has_confirmed_it_loses_what_a_crash_interrupts() {
    let design = Design { saving: Saving::BeforeSending, ..Design::BUILT };
    let scope = Scope { plans: &[&[Order::A]], publishes: true, ..SMALL };
    let story = [&[Begin(0), Write(0), Commit(0)][..], &step(0), &[Save(Holder)]].concat();
    expect_story(LogModel { design, scope, properties: &[PUBLISHED_MEANS_CONFIRMED] }, &story);
}
