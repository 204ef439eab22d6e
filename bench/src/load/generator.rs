//! Open-loop load: requests begin when their time has come, whether or not earlier ones have been answered, and each
//! latency counts from that time. A server that stalls is thus seen as its clients would see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::connection::{Answer, Ask, Connection};
use super::tally::Tally;

/// Between two looks at which requests are due.
const TICK: Duration = Duration::from_millis(1);

/// Sends requests, and counts their responses.
pub(crate) trait Work: Send + Sync + 'static {
    /// What [`Work::answered`] needs of a request.
    type Sent: Send;

    /// The next request, with the name of its kind.
    fn next(&self) -> (&'static str, Ask, Self::Sent);

    /// The answer to it.
    fn answered(&self, sent: Self::Sent, answer: &Answer);
}

/// How much, for how long.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// `host:port`
    pub(crate) address: String,
    /// Requests a second.
    pub(crate) rate: f64,
    /// How long requests are begun.
    pub(crate) duration: Duration,
    /// How many can be under way; more wait, which counts as latency.
    pub(crate) connections: usize,
}

/// Sends `work` and waits for all answers.
pub(crate) async fn generate<W: Work>(shape: &Shape, work: &Arc<W>, tally: &Arc<Tally>) {
    let (due, queue) = mpsc::unbounded_channel();
    let queue = Arc::new(Mutex::new(queue));
    let mut senders = JoinSet::new();
    for _ in 0..shape.connections {
        let (queue, work, tally) = (Arc::clone(&queue), Arc::clone(work), Arc::clone(tally));
        let connection = Connection::new(shape.address.clone());
        senders.spawn(send(connection, queue, work, tally));
    }
    schedule(shape, &due, tally).await;
    drop(due);
    senders.join_all().await;
}

/// Announces the start of each request when it is due.
async fn schedule(shape: &Shape, due: &mpsc::UnboundedSender<Instant>, tally: &Tally) {
    let begun = Instant::now();
    let between = Duration::from_secs_f64(1.0 / shape.rate);
    let end = begun + shape.duration;
    let mut next = begun;
    let mut ticks = tokio::time::interval(TICK);
    while next < end {
        ticks.tick().await;
        let now = Instant::now();
        while next <= now && next < end {
            tally.due();
            // Senders live until the channel is closed.
            let _open = due.send(next);
            next += between;
        }
    }
}

async fn send<W: Work>(
    mut connection: Connection,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    work: Arc<W>,
    tally: Arc<Tally>,
) {
    loop {
        let due = queue.lock().await.recv().await;
        let Some(due) = due else { return };
        let (kind, ask, sent) = work.next();
        tally.sent();
        let answer = connection.send(ask).await;
        tally.answered(kind, due.elapsed(), &answer);
        work.answered(sent, &answer);
    }
}
