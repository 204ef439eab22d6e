//! SQS queue names for each test.

/// The region that tests use; any would do.
const REGION: &str = "us-east-1";

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

    /// A name for a queue, which may end with `.fifo`. The queue itself is made by whoever tests it.
    pub fn queue_name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
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
