//! Publishing many messages, each with its own result.

use std::{collections::HashSet, task::Poll};

use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage,
    options::BasicPublishOptions,
};

use super::topology::short;

/// How many messages are queued for the socket at once: of the largest, a few megabytes.
const WINDOW: usize = 64;

/// One message.
pub(super) struct Outgoing<'a> {
    pub(super) exchange: &'a str,
    pub(super) routing_key: String,
    pub(super) body: &'a [u8],
    /// With the message id, by which returned messages are recognised.
    pub(super) properties: BasicProperties,
}

/// Publishes all messages and then waits for all confirms. The result of a message that is not known to be stored is an error
/// message.
///
/// Needs the channel for itself: the client library attaches a returned message to the next confirm, whichever that is, so
/// returned messages are recognised by their id here, and all of them must belong to this batch. After a failure to send, no
/// further window is sent, so that no message overtakes an earlier one.
pub(super) async fn publish_all(channel: &Channel, messages: Vec<Outgoing<'_>>) -> Vec<Result<(), String>> {
    let mut sent: Vec<Result<PendingConfirm, String>> = Vec::with_capacity(messages.len());
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let window = messages.by_ref().take(WINDOW);
        sent.extend(match sent.last() {
            Some(Err(error)) => window.map(|_| Err(error.clone())).collect(),
            _ => send_window(channel, window).await,
        });
    }
    let mut returned = HashSet::new();
    let mut results = Vec::with_capacity(sent.len());
    for message in sent {
        results.push(match message {
            Ok(PendingConfirm { id, confirm }) => {
                let confirmed = confirm.await;
                confirmed.map_err(|error| error.to_string()).and_then(|confirmation| {
                    let refused = matches!(confirmation, Confirmation::Nack(_));
                    let unconfirmed = matches!(confirmation, Confirmation::NotRequested);
                    returned.extend(confirmation.take_message().map(|message| message_id(&message)));
                    if refused {
                        Err("the broker refused the message (nack)".to_owned())
                    } else if unconfirmed {
                        Err("the channel is not in confirm mode".to_owned())
                    } else {
                        Ok(id)
                    }
                })
            }
            Err(error) => Err(error),
        });
    }
    let routed = |id: Option<String>| {
        if returned.contains(&id) {
            Err("the message was returned: no queue is bound for it".to_owned())
        } else {
            Ok(())
        }
    };
    results.into_iter().map(|result| result.and_then(routed)).collect()
}

/// Sends some messages without waiting for one to reach the socket before the next is queued.
async fn send_window(
    channel: &Channel,
    messages: impl Iterator<Item = Outgoing<'_>>,
) -> Vec<Result<PendingConfirm, String>> {
    let mut sending: Vec<_> = messages.map(|message| Box::pin(send_message(channel, message))).collect();
    let mut sent = Vec::with_capacity(sending.len());
    // A message is queued, in this order, when its future is first polled.
    for message in &mut sending {
        sent.push(futures_util::poll!(message.as_mut()));
    }
    let mut results = Vec::with_capacity(sent.len());
    for (message, polled) in sending.into_iter().zip(sent) {
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => message.await,
        };
        results.push(result.map_err(|error| error.to_string()));
    }
    results
}

/// A message whose confirm is awaited.
struct PendingConfirm {
    id: Option<String>,
    confirm: PublisherConfirm,
}

async fn send_message(channel: &Channel, message: Outgoing<'_>) -> lapin::Result<PendingConfirm> {
    let id = message.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, routing_key) = (short(message.exchange), short(&message.routing_key));
    let confirm =
        channel.basic_publish(exchange, routing_key, options, message.body, message.properties).await?;
    Ok(PendingConfirm { id, confirm })
}

fn message_id(returned: &BasicReturnMessage) -> Option<String> {
    returned.delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned())
}
