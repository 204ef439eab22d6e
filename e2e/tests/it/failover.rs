//! Redis servers are killed and frozen under the model test's load, with sentinels and in a cluster: no read is older than an
//! answered write, no event is lost, and everything is back within 15 s of the promotion. `FAILOVER_KILLS=100` makes it long. The
//! suite leaves it out: it needs the machine for itself.

mod cut_off;
mod round;

use std::time::{Duration, Instant};

use e2e::System;
use testbed::{RedisGroup, private_redis_cluster, private_redis_sentinel};

use self::round::{Blow, Figures, Shop};

/// How often a master fails if `FAILOVER_KILLS` does not say.
const KILLS: u32 = 2;
/// From the end of the last failure until the history has every event: the promise is 15 s, and the machine is busy.
const HEALED_WITHIN: Duration = Duration::from_secs(30);

async fn masters_fail_under_load(group: RedisGroup, blow: Blow) {
    let kills = testbed::setting("FAILOVER_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let system = System::on_redis_group(group).await;
    let shop = Shop::open(&system).await;
    let mut figures = Figures::default();
    for number in 1..=kills {
        let mut runs = shop.fail_one_master(number, blow, &mut figures).await;
        for run in &mut runs {
            run.check_reads().await;
        }
        println!("{number} of {kills}: {}", figures.last());
        if number == kills {
            let since = Instant::now();
            let verdict = system.wait_until_consistent(HEALED_WITHIN).await;
            assert_eq!(verdict.differences, Vec::<String>::new());
            println!("the history was complete {:.1?} after the last failure was over", since.elapsed());
            for run in &mut runs {
                run.compare().await;
            }
            system.worker_command().arg("verify").run().await.expect("nothing differs");
        }
    }
    let repaired = shop.count_repaired().await;
    println!("{figures}; {repaired} lost events were sent again");
    assert!(repaired > 0, "no event was lost, so that nothing has been shown");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the machine for itself: cargo xtask test --ignored -p e2e failover::"]
async fn killed_masters_with_sentinels_lose_no_event_and_leave_no_old_read() {
    masters_fail_under_load(private_redis_sentinel().await, Blow::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the machine for itself: cargo xtask test --ignored -p e2e failover::"]
async fn frozen_masters_with_sentinels_lose_no_event_and_leave_no_old_read_when_they_come_back() {
    masters_fail_under_load(private_redis_sentinel().await, Blow::Freeze).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the machine for itself: cargo xtask test --ignored -p e2e failover::"]
async fn killed_masters_of_a_cluster_lose_no_event_and_leave_no_old_read() {
    masters_fail_under_load(private_redis_cluster().await, Blow::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the machine for itself: cargo xtask test --ignored -p e2e failover::"]
async fn frozen_masters_of_a_cluster_lose_no_event_and_leave_no_old_read_when_they_come_back() {
    masters_fail_under_load(private_redis_cluster().await, Blow::Freeze).await;
}
