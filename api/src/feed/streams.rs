//! The open streams of this process: how many there are, and which of them must be cut off.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use shared::domain::order::CustomerKey;

use super::settings::FeedSettings;

/// Nothing that was handed out waits for the client.
const NOTHING: u64 = 0;

/// The open streams of this process.
#[derive(Clone)]
pub(super) struct StreamSlots(Arc<Slots>);

struct Slots {
    most: usize,
    most_of_customer: usize,
    epoch: Instant,
    open: Mutex<OpenStreams>,
}

#[derive(Default)]
struct OpenStreams {
    next_id: u64,
    by_id: HashMap<u64, Arc<StreamState>>,
    of_customer: HashMap<CustomerKey, usize>,
}

struct StreamState {
    /// The last position that was handed out.
    position: AtomicI64,
    /// Whether it has reached the end of the log once.
    has_caught_up: AtomicBool,
    /// Milliseconds after the epoch, plus one, at which the piece was handed out that the client has not accepted yet.
    handed_out_at: AtomicU64,
    /// Closes the connection.
    close: Box<dyn Fn() + Send + Sync>,
}

/// There are as many streams as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyStreams {
    /// Of this customer.
    #[error("{0} streams of this customer are open already; close one of them")]
    OfCustomer(usize),
    /// Of all customers.
    #[error("{0} streams are open already; try again in a moment, or read by pages")]
    OfProcess(usize),
}

/// An open stream. It counts until it is dropped.
pub struct OpenStream {
    slots: StreamSlots,
    id: u64,
    customer: CustomerKey,
    state: Arc<StreamState>,
}

impl StreamSlots {
    pub(super) fn new(settings: &FeedSettings) -> Self {
        Self(Arc::new(Slots {
            most: settings.streams,
            most_of_customer: settings.streams_per_customer,
            epoch: Instant::now(),
            open: Mutex::default(),
        }))
    }

    /// Opens a stream of a customer. `close` closes its connection.
    pub(super) fn open(
        &self,
        customer: CustomerKey,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Result<OpenStream, TooManyStreams> {
        let Slots { most, most_of_customer, .. } = *self.0;
        let mut open = self.lock();
        if open.by_id.len() >= most {
            return Err(TooManyStreams::OfProcess(most));
        }
        let of_customer = open.of_customer.entry(customer).or_default();
        if *of_customer >= most_of_customer {
            return Err(TooManyStreams::OfCustomer(most_of_customer));
        }
        *of_customer += 1;
        let state = Arc::new(StreamState {
            position: AtomicI64::new(0),
            has_caught_up: AtomicBool::new(false),
            handed_out_at: AtomicU64::new(NOTHING),
            close: Box::new(close),
        });
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, Arc::clone(&state));
        gauge!("feed_streams").increment(1.0);
        Ok(OpenStream { slots: self.clone(), id, customer, state })
    }

    /// Cuts off each stream whose client has accepted nothing for this long: of those that have caught up once, the ones that are far
    /// behind; and of those that are catching up, all, if others wait for their pages.
    pub(super) fn cut_stalled(
        &self,
        stalled_after: Duration,
        others_wait: bool,
        is_far_behind: impl Fn(i64) -> bool,
    ) {
        let stalled: Vec<_> = {
            let open = self.lock();
            let stalled = open.by_id.values().filter(|state| {
                let handed_out = state.handed_out_at.load(Relaxed);
                handed_out != NOTHING
                    && (others_wait || state.has_caught_up.load(Relaxed))
                    && self.now().saturating_sub(handed_out) >= millis(stalled_after)
            });
            stalled.cloned().collect()
        };
        for state in stalled {
            let is_catching_up = !state.has_caught_up.load(Relaxed);
            if is_catching_up || is_far_behind(state.position.load(Relaxed)) {
                counter!("feed_cut_offs_total").increment(1);
                (state.close)();
            }
        }
    }

    /// How many streams are open.
    pub(super) fn count(&self) -> usize {
        self.lock().by_id.len()
    }

    fn now(&self) -> u64 {
        millis(self.0.epoch.elapsed()) + 1
    }

    fn lock(&self) -> MutexGuard<'_, OpenStreams> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    /// A piece of the stream is handed to the connection. `position` is the last one in it.
    pub fn hand_out(&self, position: i64, has_caught_up: bool) {
        self.state.position.store(position, Relaxed);
        self.state.has_caught_up.fetch_or(has_caught_up, Relaxed);
        self.state.handed_out_at.store(self.slots.now(), Relaxed);
    }

    /// The connection asks for the next piece.
    pub fn accepted(&self) {
        self.state.handed_out_at.store(NOTHING, Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        open.by_id.remove(&self.id);
        if let Some(count) = open.of_customer.get_mut(&self.customer) {
            *count -= 1;
            if *count == 0 {
                open.of_customer.remove(&self.customer);
            }
        }
        gauge!("feed_streams").decrement(1.0);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use shared::domain::tenant::TenantId;

    use super::*;

    fn slots(most: usize, most_of_customer: usize) -> StreamSlots {
        StreamSlots::new(&FeedSettings {
            streams: most,
            streams_per_customer: most_of_customer,
            ..FeedSettings::default()
        })
    }

    fn customer(id: i64) -> CustomerKey {
        CustomerKey { tenant: TenantId::DEFAULT, id: id.try_into().unwrap() }
    }

    #[test]
    fn a_stream_that_ends_makes_room_for_another() {
        let slots = slots(3, 2);
        let open = |id| slots.open(customer(id), || {});
        let first = open(1).ok();
        let _second = open(1).ok();
        assert_eq!(open(1).err(), Some(TooManyStreams::OfCustomer(2)));
        let _third = open(2).ok();
        assert_eq!(open(3).err(), Some(TooManyStreams::OfProcess(3)));
        drop(first);
        assert!(open(1).is_ok());
        assert_eq!(slots.count(), 2);
    }

    #[test]
    fn only_a_stream_that_has_caught_up_and_is_not_read_is_cut_off() {
        let slots = slots(3, 3);
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let Ok(stream) = slots.open(customer(1), move || {
            counted.fetch_add(1, Relaxed);
        }) else {
            panic!("there is room");
        };
        let cut = |far: bool| {
            slots.cut_stalled(Duration::ZERO, false, |position| far && position == 7);
            cuts.swap(0, Relaxed)
        };
        assert_eq!(cut(true), 0, "nothing was handed out");
        stream.hand_out(7, false);
        assert_eq!(cut(true), 0, "it is still catching up");
        stream.hand_out(7, true);
        assert_eq!(cut(false), 0, "little waits for it");
        assert_eq!(cut(true), 1);
        stream.accepted();
        assert_eq!(cut(true), 0, "its client reads again");
    }
}
