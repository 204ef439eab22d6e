//! Passwords: which ones are accepted, and hashing them, which is slow on purpose.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _},
};
use precis_profiles::{
    OpaqueString,
    precis_core::{
        DerivedPropertyValue, FreeformClass, StringClass as _,
        profile::{Profile as _, Rules as _},
    },
};
use zxcvbn::{Score, zxcvbn};

use super::{
    AuthError, Email,
    password_queue::{PasswordQueue, QueueLimits, QueuePlace},
};
use crate::limits::Network;

/// Compared with if there is no account, so that the response takes the same time. It has the parameters of every hash made
/// here, and is the hash of no password.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// How many characters a password has.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// A new password must withstand a million guesses, as `zxcvbn` estimates them. Apart from that and the length there is no
/// rule for its characters (NIST SP 800-63B, section 3.1.1.2).
const MIN_SCORE: Score = Score::Two;

/// The most logins that hash at a time: more would only take more memory.
const MAX_RUNNING: usize = 8;

/// A password as it was typed, and as RFC 8265 compares it (the profile `OpaqueString`): every space is the ASCII space,
/// and equal characters have one form (NFC) whatever the keyboard.
pub(crate) struct Password {
    typed: String,
    /// `None` if the profile does not allow it, because of control characters for example.
    normalised: Option<String>,
}

/// Why a text is not accepted as a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordParseError {
    #[error("must have {} to {} characters", LENGTH.start(), LENGTH.end())]
    Length,
    #[error("must not contain control characters, or others that RFC 8265 does not allow in passwords")]
    Characters,
}

impl Password {
    /// Accepts the password of a login. Passwords that are not accepted for new accounts can belong to older accounts.
    pub(crate) fn for_login(typed: String) -> Result<Self, PasswordParseError> {
        let normalised = normalise(&typed);
        let password = Self { typed, normalised };
        if password.forms().any(|form| LENGTH.contains(&form.chars().count())) {
            Ok(password)
        } else {
            Err(PasswordParseError::Length)
        }
    }

    /// Accepts the password of a new account, unless [`hash_password`] finds it weak.
    pub(crate) fn for_new_account(typed: String) -> Result<Self, PasswordParseError> {
        let password = Self::for_login(typed)?;
        let normalised = password.normalised.as_ref().ok_or(PasswordParseError::Characters)?;
        if LENGTH.contains(&normalised.chars().count()) {
            Ok(password)
        } else {
            Err(PasswordParseError::Length)
        }
    }

    /// Whether it is common, or made of the address of its account. Takes milliseconds.
    fn is_weak(&self, email: &Email) -> bool {
        let email = email.as_str();
        let domain_name = email.split('@').next_back().and_then(|domain| domain.split('.').next());
        let words = email.split(|character: char| !character.is_alphanumeric());
        let known: Vec<&str> =
            std::iter::once(email).chain(email.split('@')).chain(domain_name).chain(words).collect();
        // zxcvbn values capitals in odd places higher than they are for an attacker.
        zxcvbn(&self.preferred().to_lowercase(), &known).score() < MIN_SCORE
    }

    /// The form that is hashed for a new account.
    fn preferred(&self) -> &str {
        self.normalised.as_deref().unwrap_or(&self.typed)
    }

    /// The forms that a stored hash can be of: the normalised form, or what was typed, for accounts that are older than the
    /// normalised form.
    fn forms(&self) -> impl Iterator<Item = &str> {
        let typed = Some(self.typed.as_str()).filter(|typed| *typed != self.preferred());
        std::iter::once(self.preferred()).chain(typed)
    }
}

/// The form in which passwords are compared, if the profile allows the text. Characters that are newer than the profile's
/// tables are allowed.
fn normalise(typed: &str) -> Option<String> {
    let (profile, class) = (OpaqueString::new(), FreeformClass::default());
    let is_new = |character| class.get_value_from_char(character) == DerivedPropertyValue::Unassigned;
    let known: String =
        typed.chars().map(|character| if is_new(character) { 'x' } else { character }).collect();
    profile.prepare(known).ok()?;
    let spaced = profile.additional_mapping_rule(typed).ok()?;
    Some(profile.normalization_rule(spaced).ok()?.into_owned())
}

/// The queues for hashing passwords.
pub(crate) struct PasswordQueues {
    logins: Arc<PasswordQueue>,
    /// Apart from logins, which must not wait for new accounts.
    registrations: Arc<PasswordQueue>,
}

impl PasswordQueues {
    /// Logins hash on all cores, those of one network on all but one; registrations hash on a quarter of the cores.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_RUNNING);
        Self {
            logins: PasswordQueue::new(QueueLimits {
                running: cores,
                running_per_network: cores - 1,
                places: 128,
                places_per_network: 64,
            }),
            registrations: PasswordQueue::new(QueueLimits {
                running: (cores / 4).max(1),
                running_per_network: 1,
                places: 48,
                places_per_network: 24,
            }),
        }
    }

    /// Takes a place in the queue of logins. Fails at once if there is none.
    pub(crate) fn enter_login(&self, network: Network) -> Result<QueuePlace, AuthError> {
        self.logins.enter(network)
    }

    /// Takes a place in the queue of registrations. Fails at once if there is none.
    pub(crate) fn enter_registration(&self, network: Network) -> Result<QueuePlace, AuthError> {
        self.registrations.enter(network)
    }
}

/// Returns the hash to store for a new account, with Argon2id (19 MiB, two passes: what OWASP recommends). Fails if the
/// password is weak.
pub(crate) async fn hash_password(
    place: QueuePlace,
    password: Password,
    email: &Email,
) -> Result<String, AuthError> {
    let email = email.clone();
    let hashed = place.run_blocking(move || {
        if password.is_weak(&email) {
            return Ok(None);
        }
        let hash = Argon2::default().hash_password(password.preferred().as_bytes())?;
        Ok::<_, password_hash::Error>(Some(hash.to_string()))
    });
    hashed.await?.map_err(AuthError::internal)?.ok_or(AuthError::WeakPassword)
}

/// Whether a password is the one that was hashed. Without a hash it is not, after the same time.
pub(crate) async fn verify_password(
    place: QueuePlace,
    password: Password,
    hash: Option<String>,
) -> Result<bool, AuthError> {
    let verified = place.run_blocking(move || {
        let stored = hash.as_deref().unwrap_or(DUMMY_HASH);
        for form in password.forms() {
            match Argon2::default().verify_password(form.as_bytes(), stored) {
                Ok(()) => return Ok(hash.is_some()),
                Err(password_hash::Error::PasswordInvalid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    });
    verified.await?.map_err(AuthError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(typed: &str) -> Password {
        Password::for_login(typed.to_owned()).unwrap()
    }

    fn place(queues: &PasswordQueues) -> QueuePlace {
        queues.enter_login(std::net::IpAddr::from([127, 0, 0, 1]).into()).unwrap()
    }

    #[tokio::test]
    async fn comparing_without_an_account_costs_as_much_as_with_one() {
        let queues = PasswordQueues::new();
        let email = "ada@example.com".parse().unwrap();
        let hash = hash_password(place(&queues), password("correct horse"), &email).await.unwrap();
        let parameters = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(DUMMY_HASH), parameters(&hash));
        let is_right = async |typed: &str, hash: Option<&String>| {
            verify_password(place(&queues), password(typed), hash.cloned()).await.unwrap()
        };
        assert!(is_right("correct horse", Some(&hash)).await);
        assert!(!is_right("wrong horse", Some(&hash)).await);
        assert!(!is_right("correct horse", None).await);
    }

    #[tokio::test]
    async fn a_password_is_equal_from_every_keyboard_and_matches_older_hashes() {
        let queues = PasswordQueues::new();
        let email = "ada@example.com".parse().unwrap();
        // An umlaut in one or two code points, an ideographic space for a plain one.
        let (composed, decomposed) = ("pf\u{e4}lzer wald", "pfa\u{308}lzer\u{3000}wald");
        let new = hash_password(place(&queues), password(decomposed), &email).await.unwrap();
        let old = Argon2::default().hash_password(decomposed.as_bytes()).unwrap().to_string();
        let is_right = async |typed: &str, hash: &str| {
            verify_password(place(&queues), password(typed), Some(hash.to_owned())).await.unwrap()
        };
        assert!(is_right(composed, &new).await && is_right(decomposed, &new).await);
        assert!(is_right(decomposed, &old).await && !is_right(composed, &old).await);
    }

    #[test]
    fn common_passwords_and_those_made_of_the_address_are_weak() {
        let email = "ada.lovelace@analytical-engines.org".parse().unwrap();
        for weak in [
            "aaaaaaaa",
            "        ",
            "password",
            "P@ssw0rd",
            "password123",
            "12345678",
            "qwertyuiop",
            "abcdefgh",
            "iloveyou",
            "11111111111111111111",
            "abcabcabcabc",
            "ada.lovelace@analytical-engines.org",
            "ADA.LOVELACE@ANALYTICAL-ENGINES.ORG",
            "Ada.Lovelace@analytical-engines.org1",
            "ada.lovelace",
            "adalovelace",
            "analytical-engines",
            "PaSsWoRd",
            "aDa.LoVeLaCe@aNaLyTiCaL-EnGiNeS.oRg",
            "senigne-lacitylana",
            "lovelace1",
        ] {
            assert!(password(weak).is_weak(&email), "{weak}");
        }
        for good in
            ["correct horse", "pf\u{e4}lzer wald", "xK4#vqPz", "Grünkohl mit Pinkel", "🦀 🐙 🦑 🦐 🐚"]
        {
            assert!(!password(good).is_weak(&email), "{good}");
        }
    }
}
