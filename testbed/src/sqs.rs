//! SQS queues for each test.

use std::fmt::Write;

use anyhow::{Context, ensure};

use crate::http;

/// The region that tests use; any would do.
const REGION: &str = "us-east-1";

/// What every queue has, as `localstack/ready.d` sets it too: messages are kept as long as SQS can, 14 days.
const KEPT: (&str, &str) = ("MessageRetentionPeriod", "1209600");
/// What the queue of the events has besides: long polling, the time a consumer has, and after so many deliveries,
/// which is more than the worker needs to set an event aside itself, the dead-letter queue.
const POLLING: (&str, &str) = ("ReceiveMessageWaitTimeSeconds", "20");
const VISIBILITY: (&str, &str) = ("VisibilityTimeout", "30");
const MAX_RECEIVES: u32 = 20;

/// An SQS endpoint, and names of queues that only this test uses.
#[derive(Debug)]
pub struct SqsNamespace {
    endpoint: String,
    prefix: String,
}

/// A namespace on the SQS at `TESTBED_SQS_ENDPOINT`.
///
/// # Panics
///
/// When that is not set.
pub async fn sqs() -> SqsNamespace {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // The random end of the id: a name holds at most 80 characters.
    SqsNamespace { endpoint: crate::required("TESTBED_SQS_ENDPOINT"), prefix: format!("t{}", &id[16..]) }
}

impl SqsNamespace {
    /// For `AWS_ENDPOINT_URL` of a program under test.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A name for a queue, which can end with `.fifo`. The test creates the queue itself.
    pub fn queue_name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Makes a queue of its own, with a dead-letter queue behind it, and returns its URL, for `SQS_QUEUE_URL`.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn create_queue(&self, name: &str) -> String {
        create_queue(&self.endpoint, &self.queue_name(name))
            .await
            .unwrap_or_else(|error| panic!("no SQS queue for this test: {error:#}"))
    }

    /// Makes a queue with nothing behind it, as an operator would by mistake, and returns its URL.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn create_bare_queue(&self, name: &str) -> String {
        create(&self.endpoint, &self.queue_name(name), [].into_iter())
            .await
            .unwrap_or_else(|error| panic!("no SQS queue for this test: {error:#}"))
    }

    /// Deletes a queue, with all that is in it.
    ///
    /// # Panics
    ///
    /// When it cannot be deleted.
    pub async fn delete_queue(&self, url: &str) {
        let query = format!("Action=DeleteQueue&QueueUrl={}", percent_encode(url));
        call(&self.endpoint, &query)
            .await
            .unwrap_or_else(|error| panic!("the queue cannot be deleted: {error:#}"));
    }

    /// About how many messages of a queue no consumer has received.
    ///
    /// # Panics
    ///
    /// When there is no such queue.
    pub async fn messages(&self, url: &str) -> u64 {
        let query = format!(
            "Action=GetQueueAttributes&QueueUrl={}&AttributeName.1=ApproximateNumberOfMessages",
            percent_encode(url)
        );
        let counted = async {
            let answer = call(&self.endpoint, &query).await?;
            anyhow::Ok(element(&answer, "Value").context("no attribute")?.parse()?)
        };
        counted.await.unwrap_or_else(|error| panic!("the queue cannot be looked at: {error:#}"))
    }

    /// For `AWS_REGION`.
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// What a program under test needs in its environment to get here, with credentials that open nothing else.
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }
}

/// Makes a queue and its dead-letter queue if they are missing, and returns the URL of the first. Both are FIFO queues
/// if the name ends with `.fifo`.
pub async fn create_queue(endpoint: &str, name: &str) -> anyhow::Result<String> {
    let (stem, kind) = name.strip_suffix(".fifo").map_or((name, ""), |stem| (stem, ".fifo"));
    let dead_letters = format!("{stem}-dlq{kind}");
    let fifo = (!kind.is_empty()).then_some(("FifoQueue", "true"));
    let url = create(endpoint, &dead_letters, fifo.into_iter().chain([KEPT])).await?;
    let account = url.rsplit('/').nth(1).context("the queue's URL names no account")?;
    let redrive = format!(
        r#"{{"deadLetterTargetArn":"arn:aws:sqs:{REGION}:{account}:{dead_letters}","maxReceiveCount":"{MAX_RECEIVES}"}}"#
    );
    let attributes = [KEPT, POLLING, VISIBILITY, ("RedrivePolicy", &redrive)];
    create(endpoint, name, fifo.into_iter().chain(attributes)).await
}

async fn create(
    endpoint: &str,
    name: &str,
    attributes: impl Iterator<Item = (&str, &str)>,
) -> anyhow::Result<String> {
    let mut query = format!("Action=CreateQueue&QueueName={name}");
    for (number, (name, value)) in (1..).zip(attributes) {
        let value = percent_encode(value);
        write!(query, "&Attribute.{number}.Name={name}&Attribute.{number}.Value={value}")?;
    }
    let answer = call(endpoint, &query).await.context("the queue cannot be made")?;
    let url = element(&answer, "QueueUrl").context("the answer names no queue URL")?;
    // LocalStack names a host that only a machine with a name server resolves; the path is what counts.
    let path = url.splitn(4, '/').nth(3).context("the queue's URL has no path")?;
    Ok(format!("{endpoint}/{path}"))
}

/// One call of SQS's query protocol.
async fn call(endpoint: &str, query: &str) -> anyhow::Result<String> {
    // LocalStack checks no signature, but takes the region from it.
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=test/20250101/{REGION}/sqs/aws4_request, SignedHeaders=host, Signature=none"
    );
    let headers = [("Authorization", authorization.as_str())];
    let response =
        http::request("GET", &format!("{endpoint}/?Version=2012-11-05&{query}"), &headers, None).await?;
    ensure!(response.is_success(), "{} {}", response.status, response.body);
    Ok(response.body)
}

/// What stands in the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
