//! Simpler designs of the cache, each with the shortest story of an old read.

use models::cache::{
    CacheAction::{
        self, Delete, Evict, Expire, Fill, Handle, Load, MarkFill, Promote, Reconnect, ReconnectWorker,
        Replicate, Update, WriteThrough,
    },
    CacheModel, Creators, Deletion, Design, Filling, FillingAfterPromotion, Keys, LateEvents,
    NOTHING_IS_OLDER, Scope,
};

use crate::support::expect_story;

const ONE_SERVER: Scope =
    Scope { versions: 2, forgets: true, outages: false, has_successor: false, first_has_just_started: false };
const FAILOVER: Scope = Scope { forgets: false, has_successor: true, ..ONE_SERVER };

fn expect_old_read(design: Design, scope: Scope, story: &[CacheAction]) {
    expect_story(CacheModel { design, scope, properties: &[NOTHING_IS_OLDER] }, story);
}

#[test]
fn a_reader_without_a_mark_brings_back_what_was_evicted_for_a_newer_version() {
    let design = Design { filling: Filling::IfThereIsNoEntry, ..Design::BUILT };
    let story = [MarkFill(0), Load(0), Update(1), WriteThrough(1), Evict, Fill(0)];
    expect_old_read(design, ONE_SERVER, &story);
}

#[test]
fn without_a_tombstone_an_event_brings_a_deleted_order_back() {
    let design = Design { deletion: Deletion::LeavesNothing, ..Design::BUILT };
    expect_old_read(design, ONE_SERVER, &[Delete(0), WriteThrough(0), Handle(1)]);
}

#[test]
fn a_late_event_that_creates_an_entry_brings_back_what_has_expired() {
    let design = Design { late_events: LateEvents::Create, ..Design::BUILT };
    expect_old_read(design, ONE_SERVER, &[Update(0), WriteThrough(0), Expire, Handle(1)]);
}

#[test]
fn with_the_same_keys_a_promoted_server_shows_what_had_been_replicated_to_it() {
    let design = Design { keys: Keys::AreTheSame, ..Design::BUILT };
    let cached = [MarkFill(0), Load(0), Fill(0)];
    let lost = [Replicate, Update(0), WriteThrough(0)];
    expect_old_read(design, FAILOVER, &[&cached[..], &lost, &[Promote, Reconnect(0)]].concat());
}

#[test]
fn a_reader_that_fills_at_once_after_a_promotion_brings_what_was_changed_on_the_server_before() {
    let design = Design { filling_after_promotion: FillingAfterPromotion::AtOnce, ..Design::BUILT };
    let read = [Promote, Reconnect(1), MarkFill(1), Load(1)];
    let story = [&read[..], &[Update(0), WriteThrough(0), Fill(1)]].concat();
    expect_old_read(design, FAILOVER, &story);
}

#[test]
fn an_event_that_creates_an_entry_after_a_promotion_brings_what_was_changed_on_the_server_before() {
    let design = Design { creators: Creators::Everybody, ..Design::BUILT };
    let story = [Update(0), WriteThrough(0), Promote, Reconnect(0), ReconnectWorker, Handle(1)];
    expect_old_read(design, FAILOVER, &story);
}

#[test]
fn if_each_process_creates_entries_by_its_own_clock_one_that_has_just_started_is_overtaken() {
    let design = Design { creators: Creators::ProcessesThatKnowTheEra, ..Design::BUILT };
    let scope = Scope { first_has_just_started: true, ..FAILOVER };
    expect_old_read(design, scope, &[Update(0), WriteThrough(0), Handle(1)]);
}
