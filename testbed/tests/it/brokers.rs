//! The two brokers that are slow to start.

use testbed::http;
use testbed::native::{self, Storage};

#[tokio::test]
async fn rabbitmq_starts_takes_connections_and_stops() {
    let rabbitmq = native::rabbitmq(&Storage::Throwaway).await.unwrap();
    let overview = http::get(&format!("{}/api/overview", rabbitmq.management_url())).await.unwrap();
    assert!(overview.is_success(), "{}", overview.body);
    rabbitmq.stop().await.unwrap();
    assert!(http::get(&format!("{}/api/overview", rabbitmq.management_url())).await.is_err());
}

#[tokio::test]
async fn a_virtual_host_is_seen_by_one_test_only_and_deleted_with_it() {
    let (one, two) = tokio::join!(testbed::rabbitmq(), testbed::rabbitmq());
    assert_ne!(one.url(), two.url());
    let path = format!("vhosts/{}", one.name());
    assert!(two.manage("GET", &path, None).await.unwrap().is_success());
    drop(one);
    assert_eq!(two.manage("GET", &path, None).await.unwrap().status, 404);
}

#[tokio::test]
async fn sqs_gives_each_test_queues_of_its_own() {
    let (one, two) = tokio::join!(testbed::sqs(), testbed::sqs());
    let name = one.queue_name("orders.fifo");
    assert_ne!(name, two.queue_name("orders.fifo"));
    assert!(name.len() <= 80);
    let url = one.create_queue("plain").await;
    assert!(url.ends_with(&one.queue_name("plain")), "{url}");
    assert_eq!(one.create_queue("plain").await, url, "a queue that is there already is right");
}
