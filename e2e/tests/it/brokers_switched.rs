//! The runbook's steps for switching brokers, under load: from Redis Streams to RabbitMQ to SQS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use e2e::{Broker, Client, System};

/// In which a busy machine places thirty orders and more.
const A_WHILE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn switching_brokers_under_load_to_rabbitmq_and_sqs_loses_nothing() {
    let mut system = System::new(Broker::RedisStreams).await;
    let port = testbed::free_port();
    let mut api = system.api_at(port).await;
    let mut worker = system.worker().await;
    let stop = Arc::new(AtomicBool::new(false));
    let lived = Arc::new(AtomicI64::new(0));
    let load = {
        let (stop, lived) = (Arc::clone(&stop), Arc::clone(&lived));
        let client = Client::login(&api.url, 1).await.expect("logs in");
        tokio::spawn(async move {
            let mut seed = 0;
            while !stop.load(Ordering::SeqCst) {
                client.complete_order(seed).await?;
                seed += 1;
                lived.store(seed, Ordering::SeqCst);
            }
            anyhow::Ok(seed)
        })
    };
    for next in [Broker::rabbitmq().await, Broker::sqs().await] {
        let before = lived.load(Ordering::SeqCst);
        testbed::eventually_within(A_WHILE, "orders are placed on this broker", async || {
            lived.load(Ordering::SeqCst) >= before + 30
        })
        .await;
        // Workers of the new broker first, then the API on the new one; those of the old one drain.
        let drained = std::mem::replace(&mut system.broker, next);
        let new_worker = system.worker().await;
        api.program.terminate().await;
        api = system.api_at(port).await;
        testbed::eventually_within(A_WHILE, "the API places orders on the new broker", async || {
            lived.load(Ordering::SeqCst) >= before + 60
        })
        .await;
        worker.terminate().await;
        worker = new_worker;
        drop(drained);
    }
    stop.store(true, Ordering::SeqCst);
    let orders = load.await.expect("the load ran").expect("every request was answered");
    // What the old worker had not read when it stopped is repaired by the reconciler.
    let verdict = system.wait_until_consistent(Duration::from_mins(4)).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    assert_eq!(verdict.history, 3 * orders);
    worker.terminate().await;
    api.program.terminate().await;
}
