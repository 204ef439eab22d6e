//! What sequencing does on PostgreSQL is what its model does: both take the same random steps, and the logs are compared.

use models::{
    Model as _,
    log::{Design, LogAction, LogModel, LogState, Order, Scope},
};
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::outbox_support::{Log, append};

const WALKS: u64 = 40;
const STEPS: usize = 100;
const PLANS: &[&[Order]] = &[
    &[Order::A],
    &[Order::A, Order::B],
    &[Order::B],
    &[Order::A],
    &[Order::B],
    &[Order::A, Order::B],
    &[Order::A],
    &[Order::B],
    &[Order::A],
    &[Order::B],
];
/// Small, so that most steps fill more than one.
const PAGE: i32 = 2;

/// The model, and a real log that does the same.
struct Walk {
    model: LogModel,
    state: LogState,
    /// The connection of each transaction.
    writers: Vec<PgConnection>,
    relay: PgConnection,
    owner: Uuid,
    epoch: i64,
    /// The snapshot up to which a program of the version before has published.
    window: Option<String>,
}

impl Walk {
    async fn new(log: &Log) -> Self {
        let scope = Scope {
            plans: PLANS,
            rollbacks: true,
            statements: 1,
            publishes: false,
            has_program_before: true,
            reads: false,
        };
        let model = LogModel { design: Design::BUILT, scope, properties: &[] };
        let mut writers = Vec::new();
        for _ in PLANS {
            writers.push(log.connection().await);
        }
        let relay = log.connection().await;
        let state = model.init_states().remove(0);
        Self { model, state, writers, relay, owner: Uuid::nil(), epoch: 0, window: None }
    }

    /// Begins anew, with an empty log.
    async fn restart(&mut self, log: &Log) {
        for writer in 0..self.writers.len() {
            self.run(writer, "ROLLBACK").await;
        }
        log.run("TRUNCATE outbox, log_pages").await;
        log.run(
            "UPDATE relay SET sequenced = '1:1:', head = 0, published_position = 0, published = pg_current_snapshot()",
        )
        .await;
        self.state = self.model.init_states().remove(0);
        self.take_lease().await;
    }

    /// The steps that the model allows now. None is left to a statement, because each runs to its end.
    fn actions(&self) -> Vec<LogAction> {
        let mut actions = Vec::new();
        self.model.actions(&self.state, &mut actions);
        actions
    }

    async fn take(&mut self, action: LogAction) {
        self.advance(action);
        match action {
            LogAction::Begin(writer) => {
                self.run(writer, "BEGIN").await;
                self.run(writer, "SELECT pg_current_xact_id()").await;
            }
            LogAction::Write(writer) => {
                let event = *self.state.database.outbox.last().expect("an event");
                append(&mut self.writers[writer], number(event.order), event.version.into()).await;
            }
            LogAction::Commit(writer) => self.run(writer, "COMMIT").await,
            LogAction::RollBack(writer) => self.run(writer, "ROLLBACK").await,
            LogAction::Send(place) => {
                let before = self.state.log.len();
                for step in
                    [LogAction::Lock(place), LogAction::TakeSnapshot(place), LogAction::CommitStep(place)]
                {
                    self.advance(step);
                }
                let appended = self.sequence(self.owner, self.epoch).await;
                assert_eq!(appended, i64::try_from(self.state.log.len() - before).ok());
                self.compare().await;
            }
            LogAction::TakeOver | LogAction::TakeOverByProgramBefore => {
                let (owner, epoch) = (self.owner, self.epoch);
                self.take_lease().await;
                assert_eq!(self.sequence(owner, epoch).await, None, "an outdated statement is refused");
            }
            LogAction::PublishWindow => {
                let snapshot =
                    sqlx::query_scalar("SELECT pg_current_snapshot()::text").fetch_one(&mut self.relay);
                self.window = Some(snapshot.await.expect("a snapshot"));
            }
            LogAction::SaveWindow => {
                sqlx::query("UPDATE relay SET published = $1::pg_snapshot WHERE owner = $2 AND epoch = $3")
                    .bind(self.window.take().expect("a window"))
                    .bind(self.owner)
                    .bind(self.epoch)
                    .execute(&mut self.relay)
                    .await
                    .expect("the window is saved");
            }
            other => unreachable!("{other:?} is not chosen"),
        }
    }

    fn advance(&mut self, action: LogAction) {
        self.state = self.model.next_state(&self.state, action).expect("the model allows it");
    }

    async fn run(&mut self, writer: usize, sql: &'static str) {
        sqlx::query(sql)
            .execute(&mut self.writers[writer])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn take_lease(&mut self) {
        self.owner = Uuid::now_v7();
        self.window = None;
        let taken = sqlx::query_scalar("UPDATE relay SET owner = $1, epoch = epoch + 1 RETURNING epoch");
        self.epoch = taken.bind(self.owner).fetch_one(&mut self.relay).await.expect("the lease");
    }

    async fn sequence(&mut self, owner: Uuid, epoch: i64) -> Option<i64> {
        sqlx::query_scalar("SELECT s.events FROM log_sequence($1, $2, '1 hour', $3) s")
            .bind(owner)
            .bind(epoch)
            .bind(PAGE)
            .fetch_one(&mut self.relay)
            .await
            .expect("it sequences")
    }

    /// Both logs have the same events at the same positions, and all that counts as published is.
    async fn compare(&mut self) {
        let events: Vec<(i64, i64, i64)> =
            sqlx::query_as(r#"SELECT "position", order_id, version FROM log_events(0, 100)"#)
                .fetch_all(&mut self.relay)
                .await
                .expect("the log");
        let expected = self.state.log.iter().map(|entry| {
            let event = self.state.database.event(entry.id);
            (i64::from(entry.position), number(event.order), i64::from(event.version))
        });
        assert_eq!(events, expected.collect::<Vec<_>>());

        // Transactions of other databases can let PostgreSQL know that a program of before has published more.
        let published: i64 = sqlx::query_scalar("SELECT published_position FROM relay")
            .fetch_one(&mut self.relay)
            .await
            .expect("a position");
        assert!(published >= self.state.row.published_position.into());
        let counted = self.state.log.iter().filter(|entry| i64::from(entry.position) <= published);
        assert!(
            counted.clone().all(|entry| self.state.broker.contains(entry.id)),
            "{published} of {events:?}"
        );
    }
}

/// How often a step is chosen: some would leave nothing to the others.
fn weight(action: &LogAction) -> u32 {
    match action {
        LogAction::TakeOver | LogAction::TakeOverByProgramBefore | LogAction::RollBack(_) => 1,
        _ => 4,
    }
}

fn number(order: Order) -> i64 {
    match order {
        Order::A => 1,
        Order::B => 2,
    }
}

#[tokio::test]
async fn what_sequencing_does_on_postgresql_is_what_its_model_does() {
    let log = Log::new().await;
    let mut walk = Walk::new(&log).await;
    let first = rand::random_range(0..u64::MAX - WALKS);
    for seed in first..first + WALKS {
        let mut random = StdRng::seed_from_u64(seed);
        println!("walk {seed}");
        walk.restart(&log).await;
        for _ in 0..STEPS {
            let actions = walk.actions();
            let action =
                *actions.choose_weighted(&mut random, weight).expect("the lease can always be taken");
            println!("{action:?}");
            walk.take(action).await;
        }
    }
}
