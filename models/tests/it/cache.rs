//! The cache as it is built.

use models::cache::{CacheModel, Design, OF_CACHE, Scope};

use crate::support::explore;

const ONE_SERVER: Scope =
    Scope { versions: 3, forgets: true, outages: false, has_successor: false, first_has_just_started: false };
const FAILOVER: Scope = Scope { forgets: false, has_successor: true, ..ONE_SERVER };

fn explore_cache(scope: Scope) {
    explore(CacheModel { design: Design::BUILT, scope, properties: OF_CACHE });
}

#[test]
fn on_a_server_that_forgets_entries_no_read_is_older_than_an_answered_write() {
    explore_cache(ONE_SERVER);
}

#[test]
fn a_replica_that_cannot_reach_the_server_for_a_while_leaves_no_old_entry_behind() {
    explore_cache(Scope { outages: true, ..ONE_SERVER });
}

#[test]
fn across_a_failover_no_read_is_older_than_an_answered_write() {
    explore_cache(FAILOVER);
}

#[test]
fn across_a_failover_of_servers_that_forget_and_are_not_reached_no_read_is_older() {
    explore_cache(Scope { forgets: true, outages: true, versions: 2, ..FAILOVER });
}
