//! Placing orders: one, or several that are written all together.

use std::sync::Arc;

use bytes::Bytes;
use shared::domain::{
    encoded::Encoded,
    event::{Event, Happened},
    order::{Order, OrderKey},
    tenant::TenantId,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Orders,
    error::OrderError,
    input::NewOrder,
    response::{OrderResponse, RenderRefusal},
    rules,
    writer::{CreateAllJob, CreateJob},
};
use crate::db::{IdempotencyClaim, StoredResponse};

/// Orders that are placed together.
pub(crate) struct OrderBatch {
    pub(crate) tenant: TenantId,
    pub(crate) new: Vec<NewOrder>,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) happened: Happened,
    /// Held until they are written, also if the client has gone meanwhile.
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
}

impl Orders {
    /// Places an order in a commit that it shares with others, and returns the response. A refusal that was stored under the key is
    /// one, too.
    pub(crate) async fn place(
        &self,
        tenant: TenantId,
        new: NewOrder,
        claim: Option<IdempotencyClaim>,
        happened: Happened,
        render_refusal: RenderRefusal,
    ) -> Result<OrderResponse, OrderError> {
        let event = self.prepare(tenant, new, happened).await?;
        let response = OrderResponse::created(&event.data.order);
        let envelope = event.to_envelope();
        let order = event.data.order.into_value();
        let event = envelope;
        self.writer.create(|reply| CreateJob { order, event, response, claim, render_refusal, reply }).await
    }

    /// Places all orders of a batch in one transaction, or none of them. `render` makes the body of the response, with status 200,
    /// of the orders' JSON.
    pub(crate) async fn place_all(
        &self,
        batch: OrderBatch,
        render_refusal: RenderRefusal,
        render: impl FnOnce(&[Encoded<Order>]) -> Bytes,
    ) -> Result<OrderResponse, OrderError> {
        let OrderBatch { tenant, new, claim, happened, permit } = batch;
        let (mut orders, mut events) = (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
        for new in new {
            let event = self.prepare(tenant, new, happened.clone()).await?;
            events.push(event.to_envelope());
            orders.push(event.data.order);
        }
        let response = OrderResponse::first(StoredResponse {
            status: 200,
            headers: vec![("content-type".into(), "application/json".to_owned())],
            body: render(&orders),
        });
        let orders: Vec<Order> = orders.into_iter().map(Encoded::into_value).collect();
        let job =
            |reply| CreateAllJob { orders, events, response, claim, render_refusal, reply, _permit: permit };
        self.writer.create_all(job).await
    }

    /// The creation of an order that has its ids.
    async fn prepare(
        &self,
        tenant: TenantId,
        new: NewOrder,
        happened: Happened,
    ) -> Result<Event, OrderError> {
        let (id, line_ids) = self.ids.take_for_order(new.lines.len()).await?;
        let order = rules::create_order(new, OrderKey { tenant, id }, line_ids, happened.time);
        Ok(Event::created(order, happened))
    }
}
