//! One queue: the client, and what its errors mean.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
        QueueAttributeName,
    },
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{BATCH, SYSTEM, SqsOptions, seconds};
use crate::broker::BrokerError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For one call with its retries.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(6);
/// How many batch calls run at once.
const PARALLEL: usize = 10;

/// A queue and the client to reach it.
#[derive(Debug)]
pub(super) struct Queue {
    client: RwLock<Arc<Client>>,
    pub(super) url: String,
}

impl Queue {
    /// Makes no call yet.
    pub(super) async fn new(options: &SqsOptions) -> Result<Self, BrokerError> {
        let client = match &options.client {
            Some(client) => client.clone(),
            None => default_client().await?,
        };
        Ok(Self { client: RwLock::new(Arc::new(client)), url: options.queue_url.clone() })
    }

    /// Makes one call, for at most `limit`; the outer error is for a call without an answer.
    ///
    /// After such a call the next ones use new connections: all connections in the client's pool may lead to a peer that has
    /// silently disappeared, and each of them would cost a call.
    pub(super) async fn call<T, E, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(&Client) -> F,
    ) -> Result<Result<T, SdkError<E>>, BrokerError>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let client = Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner));
        if let Ok(answer) = timeout(limit, call(&client)).await {
            return Ok(answer);
        }
        let mut current = self.client.write().unwrap_or_else(PoisonError::into_inner);
        // Of several calls without an answer, the first replaces the client.
        if Arc::ptr_eq(&current, &client) {
            *current = Arc::new(Client::from_conf(client.config().to_builder().build()));
        }
        Err(BrokerError::unavailable(SYSTEM, "no answer in time"))
    }

    /// Whether the queue keeps the order of its groups.
    pub(super) fn is_fifo(&self) -> bool {
        self.url.rsplit_once('.').is_some_and(|(_, end)| end == "fifo")
    }

    /// Reads attributes of the queue; shows whether it exists and may be read.
    pub(super) async fn attributes(
        &self,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, BrokerError> {
        let answer = self.call(CALL_TIMEOUT, |client| {
            let call = client.get_queue_attributes().queue_url(&self.url);
            call.set_attribute_names(Some(names.to_vec())).send()
        });
        let answer = answer.await?.map_err(|error| broker_error(&error))?;
        Ok(answer.attributes.unwrap_or_default())
    }

    /// Deletes messages; returns why some could not be deleted.
    pub(super) async fn delete(&self, receipts: Vec<String>) -> Result<Vec<String>, BrokerError> {
        let calls = receipts.chunks(BATCH).map(|chunk| {
            let entries = chunk.iter().enumerate().filter_map(|(index, receipt)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
                entry.receipt_handle(receipt).build().ok()
            });
            let entries = entries.collect();
            async move {
                let answer = self.call(CALL_TIMEOUT, |client| {
                    let call = client.delete_message_batch().queue_url(&self.url);
                    call.set_entries(Some(entries)).send()
                });
                let answer = answer.await?.map_err(|error| broker_error(&error))?;
                Ok(answer.failed.iter().map(describe).collect())
            }
        });
        let calls: Vec<_> = calls.collect();
        let answers: Vec<_> = futures_util::stream::iter(calls).buffer_unordered(PARALLEL).collect().await;
        let failed: Result<Vec<Vec<String>>, BrokerError> = answers.into_iter().collect();
        Ok(failed?.concat())
    }

    /// Makes each message visible after its time; returns which could not be changed, and why.
    pub(super) async fn set_visibility(
        &self,
        messages: Vec<(String, Duration)>,
    ) -> Result<Vec<(String, String)>, BrokerError> {
        let calls = messages.chunks(BATCH).map(|chunk| {
            let entries = chunk.iter().enumerate().filter_map(|(index, (receipt, after))| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
                entry.receipt_handle(receipt).visibility_timeout(seconds(*after)).build().ok()
            });
            let entries = entries.collect();
            async move {
                let answer = self.call(CALL_TIMEOUT, |client| {
                    let call = client.change_message_visibility_batch().queue_url(&self.url);
                    call.set_entries(Some(entries)).send()
                });
                let answer = answer.await?.map_err(|error| broker_error(&error))?;
                let failed = answer.failed.iter().filter_map(|entry| {
                    let (receipt, _) = chunk.get(entry.id.parse::<usize>().ok()?)?;
                    Some((receipt.clone(), describe(entry)))
                });
                Ok(failed.collect::<Vec<_>>())
            }
        });
        let calls: Vec<_> = calls.collect();
        let answers: Vec<Result<Vec<_>, BrokerError>> =
            futures_util::stream::iter(calls).buffer_unordered(PARALLEL).collect().await;
        let failed: Result<Vec<Vec<_>>, BrokerError> = answers.into_iter().collect();
        Ok(failed?.concat())
    }
}

/// One entry of `Failed`.
pub(super) fn describe(failure: &BatchResultErrorEntry) -> String {
    format!("{}: {}", failure.code, failure.message.as_deref().unwrap_or("no message"))
}

/// A client with the settings of the SDK's default chain.
async fn default_client() -> Result<Client, BrokerError> {
    let loader =
        aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts()).retry_config(retries());
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(BrokerError::misconfigured(SYSTEM, "no region: set AWS_REGION"));
    }
    Ok(Client::new(&config))
}

pub(super) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build()
}

/// One more attempt within the call; the callers retry too.
pub(super) fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(200))
}

/// Whether waiting can help against a failure.
pub(super) fn broker_error<E>(error: &SdkError<E>) -> BrokerError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Some(code) = error.code() else {
        let message = DisplayErrorContext(error).to_string();
        // The credential chain has no error type of its own here.
        return if message.contains("credential") && !matches!(error, SdkError::TimeoutError(_)) {
            // The rest lists every place where the SDK has looked.
            let first = message.lines().next().unwrap_or(&message).trim_end_matches(" Attempted:");
            let what_to_do =
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the process an IAM role";
            BrokerError::misconfigured(SYSTEM, format!("{}; {what_to_do}", first.trim_end_matches('.')))
        } else {
            BrokerError::unavailable(SYSTEM, message)
        };
    };
    let message = format!("{code}: {}", error.message().unwrap_or("no message").trim_end_matches('.'));
    if needs_operator(code) {
        BrokerError::misconfigured(
            SYSTEM,
            format!("{message}; check SQS_QUEUE_URL, AWS_REGION and the permissions"),
        )
    } else {
        BrokerError::unavailable(SYSTEM, message)
    }
}

/// Whether only an operator can help against a failure with this code.
fn needs_operator(code: &str) -> bool {
    const CODES: [&str; 9] = [
        "QueueDoesNotExist",
        "NonExistentQueue",
        "AccessDenied",
        "InvalidClientTokenId",
        "UnrecognizedClient",
        "SignatureDoesNotMatch",
        "InvalidAddress",
        "InvalidSecurity",
        "MissingAuthenticationToken",
    ];
    CODES.iter().any(|known| code.contains(known))
}
