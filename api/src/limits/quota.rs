//! Quotas as they are written in settings: `1000/60s`.

use std::{fmt, str::FromStr, time::Duration};

use shared::platform::config::{ConfigError, Env};

/// A number of requests in a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    requests: u32,
    seconds: u32,
}

/// The limits of customers and addresses, and how they are counted.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// The limit of one customer.
    pub customer: Option<Quota>,
    /// The limit of one address, before the caller is known.
    pub address: Option<Quota>,
    /// How long a request waits for Redis to count it; after that the process counts alone for a second. Tests of exact
    /// counts raise it, so that a busy machine does not change what is counted.
    pub deadline: Duration,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { customer: None, address: None, deadline: Duration::from_millis(50) }
    }
}

/// One limit of the API: what it counts, and how much of it is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Its name in the `RateLimit` fields and in Redis.
    pub name: &'static str,
    /// What is counted, in words.
    pub counts: &'static str,
    /// How much of it.
    pub quota: Quota,
}

/// A text is not a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a quota and a window such as 1000/60s: 1 to 1000000 requests in 1 to 86400 seconds")]
pub struct QuotaParseError;

impl Quota {
    /// `requests` in `seconds`; both at least 1.
    pub const fn new(requests: u32, seconds: u32) -> Self {
        Self {
            requests: if requests == 0 { 1 } else { requests },
            seconds: if seconds == 0 { 1 } else { seconds },
        }
    }

    /// How many requests.
    pub const fn requests(self) -> u32 {
        self.requests
    }

    /// In how many seconds.
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    pub(super) fn window_us(self) -> u64 {
        u64::from(self.seconds) * 1_000_000
    }

    /// The time in which one request is earned back; at least a microsecond, by the bounds of both numbers.
    pub(super) fn interval_us(self) -> u64 {
        (self.window_us() / u64::from(self.requests)).max(1)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}s", self.requests, self.seconds)
    }
}

impl FromStr for Quota {
    type Err = QuotaParseError;

    fn from_str(text: &str) -> Result<Self, QuotaParseError> {
        let (requests, window) = text.split_once('/').ok_or(QuotaParseError)?;
        let requests = requests.parse().map_err(|_| QuotaParseError)?;
        let seconds = window.strip_suffix('s').and_then(|text| text.parse().ok()).ok_or(QuotaParseError)?;
        let quota = Self { requests, seconds };
        // A quota is written in one way: neither `+1` nor `01`.
        let is_quota = (1..=1_000_000).contains(&requests)
            && (1..=86_400).contains(&seconds)
            && quota.to_string() == text;
        is_quota.then_some(quota).ok_or(QuotaParseError)
    }
}

impl RateLimits {
    /// Reads `RATE_LIMIT_CUSTOMER` and `RATE_LIMIT_ADDRESS`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            customer: env.parsed("RATE_LIMIT_CUSTOMER")?,
            address: env.parsed("RATE_LIMIT_ADDRESS")?,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_read_as_they_are_written() {
        assert_eq!("1000/60s".parse(), Ok(Quota::new(1000, 60)));
        assert_eq!(Quota::new(5, 1).to_string(), "5/1s");
        for text in [
            "",
            "1000",
            "1000/60",
            "0/60s",
            "10/0s",
            "-1/60s",
            "10/60m",
            "1000001/1s",
            "1/86401s",
            "01/1s",
            "+1/1s",
            " 1/1s",
            "1 /1s",
        ] {
            assert_eq!(text.parse::<Quota>(), Err(QuotaParseError), "{text}");
        }
    }
}
