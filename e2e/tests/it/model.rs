//! Random commands of several customers to two replicas of the API, and to a simple model of it: in the end orders, lists,
//! history and events are the model's.

mod commands;
mod modelled;
mod run;
mod world;

use std::sync::atomic::{AtomicI64, Ordering};

use e2e::{Broker, System};
use proptest::test_runner::{Config, TestRunner};

pub(crate) use self::commands::commands;
pub(crate) use self::run::Run;
pub(crate) use self::world::World;

#[test]
fn any_sequence_of_commands_leaves_the_orders_history_and_events_that_the_model_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let system = runtime.block_on(System::new(Broker::RedisStreams));
    let (world, _worker) = runtime.block_on(async {
        let replicas = vec![system.api().await, system.api().await];
        (World::new(replicas, system.database.connect().await), system.worker().await)
    });
    let base = AtomicI64::new(1);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::with_cases(24)
    });
    let outcome = runner.run(&commands(), |commands| {
        // People of its own for each sequence, so that all share one system.
        let base = base.fetch_add(10, Ordering::Relaxed);
        runtime.block_on(async {
            let mut run = Run::new(&world, base, world.log_in_people(base).await);
            for command in commands {
                run.step(command).await;
            }
            run.compare().await;
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
