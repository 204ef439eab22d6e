//! Passwords: which are taken, and hashing them, which is slow on purpose.

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
    Email,
    hash_queue::{HashQueue, Place, QueueLimits},
};
use crate::{
    http::{
        error::{ApiError, FieldError},
        extract::{Value, field_code},
    },
    limits::Network,
};

/// Compared with where there is no account, so that the answer takes the same time. Its parameters are those of
/// every hash made here; no password has it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Characters of a password.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// A new password must withstand a million guesses, as `zxcvbn` estimates them. Beyond that and the length there is no
/// rule for what it is made of (NIST SP 800-63B, section 3.1.1.2).
const WEAKEST: Score = Score::Two;

/// Logins that hash at a time, at most: more cores would only take more memory.
const MAX_RUNNING: usize = 8;

/// A password as it was typed, and as RFC 8265 compares it (the profile `OpaqueString`): other spaces are the ASCII one,
/// and equal characters have one form (NFC), whatever the keyboard.
pub(crate) struct Password {
    typed: String,
    /// `None` if the profile does not allow it, because of control characters for example.
    normalised: Option<String>,
}

impl Password {
    /// Of a login. Passwords that are no longer taken may belong to accounts from before.
    pub(crate) fn of_login(value: &Value<'_>) -> Result<Self, FieldError> {
        let typed = value.string()?.into_owned();
        let normalised = normalise(&typed);
        let password = Self { typed, normalised };
        if password.forms().any(|form| LENGTH.contains(&form.chars().count())) {
            Ok(password)
        } else {
            Err(wrong_length(value))
        }
    }

    /// Of a new account. [`Password::is_weak`] looks at it further.
    pub(crate) fn of_new_account(value: &Value<'_>) -> Result<Self, FieldError> {
        let password = Self::of_login(value)?;
        let Some(normalised) = &password.normalised else {
            let detail =
                "must not contain control characters, or others that RFC 8265 does not allow in passwords";
            return Err(value.error(field_code::INVALID_VALUE, detail));
        };
        if LENGTH.contains(&normalised.chars().count()) { Ok(password) } else { Err(wrong_length(value)) }
    }

    /// Whether it is a common one, or made of the address it is for. Takes milliseconds.
    fn is_weak(&self, email: &Email) -> bool {
        let email = email.as_str();
        let domain_name = email.split('@').next_back().and_then(|domain| domain.split('.').next());
        let words = email.split(|character: char| !character.is_alphanumeric());
        let known: Vec<&str> =
            std::iter::once(email).chain(email.split('@')).chain(domain_name).chain(words).collect();
        // Capitals in odd places count for much there, and for little with those who guess.
        zxcvbn(&self.preferred().to_lowercase(), &known).score() < WEAKEST
    }

    /// What is hashed for a new account.
    fn preferred(&self) -> &str {
        self.normalised.as_deref().unwrap_or(&self.typed)
    }

    /// What a stored hash may be of: the normalised form, or for accounts from before there was one, what was typed.
    fn forms(&self) -> impl Iterator<Item = &str> {
        let typed = Some(self.typed.as_str()).filter(|typed| *typed != self.preferred());
        std::iter::once(self.preferred()).chain(typed)
    }
}

/// The form in which passwords are compared, if the profile allows it. Characters that are newer than the profile's tables
/// are allowed, too.
fn normalise(typed: &str) -> Option<String> {
    let (profile, class) = (OpaqueString::new(), FreeformClass::default());
    let is_new = |character| class.get_value_from_char(character) == DerivedPropertyValue::Unassigned;
    let known: String =
        typed.chars().map(|character| if is_new(character) { 'x' } else { character }).collect();
    profile.prepare(known).ok()?;
    let spaced = profile.additional_mapping_rule(typed).ok()?;
    Some(profile.normalization_rule(spaced).ok()?.into_owned())
}

fn wrong_length(value: &Value<'_>) -> FieldError {
    let (least, most) = (LENGTH.start(), LENGTH.end());
    value.error(field_code::INVALID_LENGTH, format!("must have {least} to {most} characters"))
}

/// Hashes and verifies passwords with Argon2id (19 MiB, two passes: what OWASP recommends).
pub(crate) struct Passwords {
    logins: Arc<HashQueue>,
    /// Apart from logins, which must not wait for anybody's new accounts.
    registrations: Arc<HashQueue>,
}

impl Passwords {
    /// Logins hash on every core but one for each network, registrations on a quarter of the cores.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_RUNNING);
        Self {
            logins: HashQueue::new(QueueLimits {
                running: cores,
                running_of_network: cores - 1,
                places: 128,
                places_of_network: 64,
            }),
            registrations: HashQueue::new(QueueLimits {
                running: (cores / 4).max(1),
                running_of_network: 1,
                places: 48,
                places_of_network: 24,
            }),
        }
    }

    /// A place in the queue of logins, or a refusal at once.
    pub(crate) fn queue_login(&self, network: Network) -> Result<Place, ApiError> {
        self.logins.enter(network)
    }

    /// A place in the queue of registrations, or a refusal at once.
    pub(crate) fn queue_registration(&self, network: Network) -> Result<Place, ApiError> {
        self.registrations.enter(network)
    }
}

/// The hash to store for a new account; 422 if the password is too weak.
pub(crate) async fn hash(place: Place, password: Password, email: &Email) -> Result<String, ApiError> {
    let email = email.clone();
    let hashed = place.run(move || {
        if password.is_weak(&email) {
            return Ok(None);
        }
        let hash = Argon2::default().hash_password(password.preferred().as_bytes())?;
        Ok::<_, password_hash::Error>(Some(hash.to_string()))
    });
    hashed.await?.map_err(ApiError::internal)?.ok_or_else(|| {
        let detail = "is too common or too close to the address: choose one that is harder to guess";
        ApiError::validation(vec![FieldError::new("/password", field_code::TOO_WEAK, detail)])
    })
}

/// Whether a password is the one that was hashed. Without a hash the answer is no, after the same time.
pub(crate) async fn verify(place: Place, password: Password, hash: Option<String>) -> Result<bool, ApiError> {
    let verified = place.run(move || {
        let stored = hash.as_deref().unwrap_or(NOBODY);
        for form in password.forms() {
            match Argon2::default().verify_password(form.as_bytes(), stored) {
                Ok(()) => return Ok(hash.is_some()),
                Err(password_hash::Error::PasswordInvalid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    });
    verified.await?.map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn password(typed: &str) -> Password {
        let raw = RawValue::from_string(serde_json::to_string(typed).unwrap()).unwrap();
        Password::of_login(&Value::new(&raw, "/password".to_owned())).unwrap()
    }

    fn place(passwords: &Passwords) -> Place {
        passwords.queue_login(std::net::IpAddr::from([127, 0, 0, 1]).into()).unwrap()
    }

    #[tokio::test]
    async fn nobody_is_compared_with_at_the_cost_of_everybody() {
        let passwords = Passwords::new();
        let email = "ada@example.com".parse().unwrap();
        let hash = hash(place(&passwords), password("correct horse"), &email).await.unwrap();
        let parameters = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(NOBODY), parameters(&hash));
        let is_right = async |typed: &str, hash: Option<&String>| {
            verify(place(&passwords), password(typed), hash.cloned()).await.unwrap()
        };
        assert!(is_right("correct horse", Some(&hash)).await);
        assert!(!is_right("wrong horse", Some(&hash)).await);
        assert!(!is_right("correct horse", None).await);
    }

    #[tokio::test]
    async fn a_password_is_the_same_from_every_keyboard_and_hashes_from_before_are_still_its() {
        let passwords = Passwords::new();
        let email = "ada@example.com".parse().unwrap();
        // An umlaut in one or two code points, an ideographic space for a plain one.
        let (composed, decomposed) = ("pf\u{e4}lzer wald", "pfa\u{308}lzer\u{3000}wald");
        let new = hash(place(&passwords), password(decomposed), &email).await.unwrap();
        let old = Argon2::default().hash_password(decomposed.as_bytes()).unwrap().to_string();
        let is_right = async |typed: &str, hash: &str| {
            verify(place(&passwords), password(typed), Some(hash.to_owned())).await.unwrap()
        };
        assert!(is_right(composed, &new).await && is_right(decomposed, &new).await);
        assert!(is_right(decomposed, &old).await && !is_right(composed, &old).await);
    }

    #[test]
    fn common_passwords_and_those_made_of_the_address_are_weak_and_others_are_not() {
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
