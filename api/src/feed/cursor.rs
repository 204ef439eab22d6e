//! Cursors: a position in the log, hidden and signed for one caller's feed.

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use shared::domain::{order::CustomerId, tenant::TenantId};

use crate::auth::{Action, AuthConfig, Caller, Extent};

/// The first byte, so that a later layout can be distinguished from this one.
const LAYOUT: u8 = 1;
/// The layout, the key of the era, and the position.
const MESSAGE: usize = 1 + 4 + 8;
/// 128 bits of the HMAC: a forger has one attempt a request.
const SIGNATURE: usize = 16;
/// What the signing key is derived for, so that it signs nothing else.
const PURPOSE: &[u8] = b"orders: cursors of the event feed";
/// What is hidden: era and position. They would show a customer how much all others order.
const HIDDEN: std::ops::Range<usize> = 1..MESSAGE;

/// Which events a reader may see: those of one tenant, and nobody those of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedScope {
    /// Whose orders they are about.
    pub tenant: TenantId,
    /// Those of this customer's orders only; `None` for those of every customer of the tenant.
    pub customer: Option<CustomerId>,
}

impl From<Caller> for FeedScope {
    fn from(caller: Caller) -> Self {
        let customer = match caller.extent(Action::ReadOrders) {
            Extent::All => None,
            Extent::Own | Extent::Nothing => Some(caller.customer_id),
        };
        Self { tenant: caller.tenant, customer }
    }
}

/// A place in the log: after the event at this position of this era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub(super) era: i32,
    pub(super) position: i64,
}

/// The keys that sign and verify cursors.
pub struct CursorKeys {
    /// Signs; the others only verify.
    current: hmac::Key,
    previous: Vec<hmac::Key>,
}

impl CursorKeys {
    /// Derives the keys from the secrets of tokens, so that both are rotated together.
    pub fn new(config: &AuthConfig) -> Self {
        Self {
            current: derive_key(&config.secret),
            previous: config.previous_secrets.iter().map(derive_key).collect(),
        }
    }

    /// Encodes a place as URL-safe text, for this scope only.
    pub(super) fn sign(&self, place: LogPlace, scope: FeedScope) -> String {
        let mut bytes = [0; MESSAGE + SIGNATURE];
        let (message, signature) = bytes.split_at_mut(MESSAGE);
        message[0] = LAYOUT;
        message[1..5].copy_from_slice(&place.era.to_be_bytes());
        message[5..].copy_from_slice(&place.position.to_be_bytes());
        let tag = tag(&self.current, message, scope);
        signature.copy_from_slice(&tag.as_ref()[..SIGNATURE]);
        hide(&self.current, message, signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes what [`Self::sign`] wrote for this scope, and nothing else.
    pub(super) fn verify(&self, text: &str, scope: FeedScope) -> Option<LogPlace> {
        let bytes: [u8; MESSAGE + SIGNATURE] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (message, signature) = bytes.split_at(MESSAGE);
        let message = std::iter::once(&self.current).chain(&self.previous).find_map(|key| {
            let mut shown: [u8; MESSAGE] = message.try_into().ok()?;
            hide(key, &mut shown, signature);
            let tag = tag(key, &shown, scope);
            let is_signed = constant_time::verify_slices_are_equal(&tag.as_ref()[..SIGNATURE], signature);
            (shown[0] == LAYOUT && is_signed.is_ok()).then_some(shown)
        })?;
        Some(LogPlace {
            era: i32::from_be_bytes(message[1..5].try_into().ok()?),
            position: i64::from_be_bytes(message[5..].try_into().ok()?),
        })
    }
}

impl std::fmt::Debug for CursorKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKeys")
    }
}

fn derive_key(secret: &SecretString) -> hmac::Key {
    let master = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, PURPOSE).as_ref())
}

/// Hides what a message says, or shows it again: adds a stream of bytes that the key makes of the signature (as in SIV, RFC 5297,
/// so that a cursor is always the same text, and two cursors show only whether they are the same).
fn hide(key: &hmac::Key, message: &mut [u8], signature: &[u8]) {
    let mut seed = [0; 1 + SIGNATURE];
    seed[1..].copy_from_slice(signature);
    let stream = hmac::sign(key, &seed);
    message[HIDDEN].iter_mut().zip(stream.as_ref()).for_each(|(byte, hidden)| *byte ^= hidden);
}

/// Signs the message together with what the cursor does not say: whose feed it is.
fn tag(key: &hmac::Key, message: &[u8], scope: FeedScope) -> hmac::Tag {
    // No customer has the id 0.
    let customer = scope.customer.map_or(0, CustomerId::get);
    let mut signed = [0; MESSAGE + 4 + 8];
    signed[..MESSAGE].copy_from_slice(message);
    signed[MESSAGE..MESSAGE + 4].copy_from_slice(&scope.tenant.get().to_be_bytes());
    signed[MESSAGE + 4..].copy_from_slice(&customer.to_be_bytes());
    hmac::sign(key, &signed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(secret: &str, previous: &[&str]) -> AuthConfig {
        let secret_of = |text: &str| SecretString::from(text.to_owned());
        AuthConfig {
            secret: secret_of(secret),
            previous_secrets: previous.iter().map(|text| secret_of(text)).collect(),
            provider: None,
            test_login: false,
            local_accounts: true,
        }
    }

    fn keys() -> CursorKeys {
        CursorKeys::new(&config("a key of thirty-two bytes or more", &[]))
    }

    const ALL: FeedScope = FeedScope { tenant: TenantId::DEFAULT, customer: None };

    fn customer(id: i64) -> FeedScope {
        FeedScope { customer: Some(id.try_into().unwrap()), ..ALL }
    }

    fn of_another_tenant(scope: FeedScope) -> FeedScope {
        FeedScope { tenant: 2.try_into().unwrap(), ..scope }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(era in any::<i32>(), position in any::<i64>(), id in 1..=i64::MAX) {
            let place = LogPlace { era, position };
            for scope in [ALL, customer(id), of_another_tenant(ALL), of_another_tenant(customer(id))] {
                let text = keys().sign(place, scope);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
                prop_assert_eq!(keys().verify(&text, scope), Some(place));
            }
        }

        #[test]
        fn any_changed_cursor_is_refused(position in any::<i64>(), at in 0..MESSAGE + SIGNATURE, change in 1_u8..) {
            let text = keys().sign(LogPlace { era: 1, position }, ALL);
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            bytes[at] ^= change;
            prop_assert_eq!(keys().verify(&URL_SAFE_NO_PAD.encode(bytes), ALL), None);
        }

        #[test]
        fn any_text_is_refused(text in ".{0,60}") {
            prop_assert_eq!(keys().verify(&text, ALL), None);
        }
    }

    #[test]
    fn a_cursor_shows_nothing_of_its_place() {
        let cursor = |position, id| keys().sign(LogPlace { era: 7, position }, customer(id));
        let texts = [cursor(1000, 1), cursor(1001, 1), cursor(1000, 2)];
        for (index, text) in texts.iter().enumerate() {
            let shown = URL_SAFE_NO_PAD.decode(text).unwrap();
            for other in &texts[..index] {
                let other = URL_SAFE_NO_PAD.decode(other).unwrap();
                let same = shown[HIDDEN].iter().zip(&other[HIDDEN]).filter(|(a, b)| a == b).count();
                assert!(same < 6, "{shown:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_cursor_of_another_scope_is_refused() {
        let place = LogPlace { era: 1, position: 7 };
        let scopes = [ALL, customer(1), customer(2), of_another_tenant(ALL), of_another_tenant(customer(1))];
        for of in scopes {
            let text = keys().sign(place, of);
            for scope in scopes {
                assert_eq!(keys().verify(&text, scope).is_some(), of == scope, "{of:?} as {scope:?}");
            }
        }
    }

    #[test]
    fn a_previous_secret_verifies_and_does_not_sign() {
        let (old, new) = ("the older key, of 32 bytes or more", "the newer key, of 32 bytes or more");
        let place = LogPlace { era: 1, position: 7 };
        let before = CursorKeys::new(&config(old, &[]));
        let rotated = CursorKeys::new(&config(new, &[old]));
        let after = CursorKeys::new(&config(new, &[]));
        let text = before.sign(place, ALL);
        assert_eq!(rotated.verify(&text, ALL), Some(place));
        assert_eq!(after.verify(&text, ALL), None);
        assert_eq!(after.verify(&rotated.sign(place, ALL), ALL), Some(place));
    }
}
