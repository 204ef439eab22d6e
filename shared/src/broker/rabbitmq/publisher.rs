//! Publishing many messages, each with its own answer.

use std::collections::HashSet;

use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage,
    options::BasicPublishOptions,
};

use super::topology::short;

/// One message.
pub(super) struct Outgoing<'a> {
    pub(super) exchange: &'a str,
    pub(super) routing_key: String,
    pub(super) body: &'a [u8],
    /// With the message id, by which returned messages are recognised.
    pub(super) properties: BasicProperties,
}

/// Publishes all of them and then waits for all confirms: an error message for each that is not known to be stored.
///
/// Must have the channel to itself: the client library hands returned messages to whichever confirm is answered next, so
/// they are told apart by their id here, and all of them must belong to this batch. After the first failure to send
/// nothing more is sent, so that no message overtakes an earlier one.
pub(super) async fn publish_all(channel: &Channel, messages: Vec<Outgoing<'_>>) -> Vec<Result<(), String>> {
    let mut sent: Vec<Result<Sent, String>> = Vec::with_capacity(messages.len());
    for message in messages {
        sent.push(match sent.last() {
            Some(Err(error)) => Err(error.clone()),
            _ => send(channel, message).await.map_err(|error| error.to_string()),
        });
    }
    let mut returned = HashSet::new();
    let mut answers = Vec::with_capacity(sent.len());
    for one in sent {
        answers.push(match one {
            Ok(Sent { id, confirm }) => {
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
    answers.into_iter().map(|answer| answer.and_then(routed)).collect()
}

/// A message whose confirm is awaited.
struct Sent {
    id: Option<String>,
    confirm: PublisherConfirm,
}

async fn send(channel: &Channel, message: Outgoing<'_>) -> lapin::Result<Sent> {
    let id = message.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, routing_key) = (short(message.exchange), short(&message.routing_key));
    let confirm =
        channel.basic_publish(exchange, routing_key, options, message.body, message.properties).await?;
    Ok(Sent { id, confirm })
}

fn message_id(returned: &BasicReturnMessage) -> Option<String> {
    returned.delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned())
}
