//! The sentinels of a primary: which server it is, as most of them say.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{ConnectionAddr, ConnectionInfo, Pipeline, RedisError, RedisResult};

use super::{
    failure::wrong_url,
    observer::{Observer, collect_answers},
};

/// How long a newer primary is remembered although no sentinel names it any more, as if all sentinels were replaced by new ones.
const REMEMBERED: Duration = Duration::from_secs(10);

const NO_SENTINEL: &str = "a host before the name of the primary is no sentinel: name the sentinels, whose port usually is 26379, and not \
                           the servers";

/// The sentinels of a URL.
pub(super) struct Sentinels {
    observers: Vec<Observer>,
    primary: String,
    server: ConnectionInfo,
    /// The newest that any has named, and when. A sentinel that was cut off does not lead back to an older one.
    newest: Mutex<Option<(NamedPrimary, Instant)>>,
}

/// The primary that sentinels name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedPrimary {
    pub(super) host: String,
    pub(super) port: u16,
    /// Grows with each failover.
    epoch: u64,
}

/// What a sentinel says of one primary, by name.
type Fields = HashMap<String, String>;

/// What the sentinels say.
pub(super) struct Survey {
    pub(super) primary: NamedPrimary,
    /// When they were asked, if more than half have answered and none names a newer one. A promotion needs the votes of more
    /// than half of them, so at least one of any such number knows of it.
    pub(super) confirmed: Option<Instant>,
}

impl Sentinels {
    pub(super) fn new(
        sentinels: Vec<ConnectionInfo>,
        primary: String,
        server: ConnectionInfo,
    ) -> RedisResult<Self> {
        let observers = sentinels.into_iter().map(Observer::new).collect::<RedisResult<_>>()?;
        Ok(Self { observers, primary, server, newest: Mutex::default() })
    }

    /// Asks all of them.
    pub(super) async fn find_primary(&self) -> RedisResult<Survey> {
        let asked = Instant::now();
        let (answers, error) =
            collect_answers(self.observers.iter().map(|sentinel| self.ask(sentinel))).await;
        let are_most = answers.len() > self.observers.len() / 2;
        let Some(primary) = answers.into_iter().max_by_key(|primary| primary.epoch) else {
            return Err(error.unwrap_or_else(|| unknown(&self.primary)));
        };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((newest, named)) if newest.epoch > primary.epoch && named.elapsed() < REMEMBERED => {
                Ok(Survey { primary: newest.clone(), confirmed: None })
            }
            _ => {
                *newest = Some((primary.clone(), asked));
                Ok(Survey { primary, confirmed: are_most.then_some(asked) })
            }
        }
    }

    /// How to connect to the primary.
    pub(super) fn connection_info(&self, primary: &NamedPrimary) -> ConnectionInfo {
        self.server.clone().set_addr(at_host(self.server.addr(), &primary.host, primary.port))
    }

    async fn ask(&self, sentinel: &Observer) -> RedisResult<NamedPrimary> {
        let mut question = Pipeline::new();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        question.cmd("SENTINEL").arg("MASTERS");
        let answers: (Option<(String, u16)>, Vec<Fields>) =
            sentinel.ask(&question).await.map_err(|error| {
                if error.to_string().contains("unknown command") { wrong_url(NO_SENTINEL) } else { error }
            })?;
        let (address, primaries) = answers;
        let fields = primaries.iter().find(|fields| fields.get("name") == Some(&self.primary));
        let epoch = fields.and_then(|fields| fields.get("config-epoch")?.parse().ok());
        let ((host, port), epoch) = address.zip(epoch).ok_or_else(|| unknown(&self.primary))?;
        Ok(NamedPrimary { host, port, epoch })
    }
}

/// The same kind of address, with or without TLS, at another host.
pub(super) fn at_host(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match like.clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

fn unknown(primary: &str) -> RedisError {
    wrong_url(format!("the sentinels know no primary named {primary}: check the name after the hosts"))
}
