//! `Idempotency-Key` (IETF draft): which key a request carries, and what makes two requests the same.

use axum::http::{HeaderMap, HeaderName, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::domain::tenant::TenantId;

use crate::{
    auth::Caller,
    db::IdempotencyClaim,
    http::error::{ApiError, Code},
};

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a response that was sent before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key.
const MAX_LENGTH: usize = 255;

/// Reads the claim of a request on its key, if it carries one; 400 if the key is malformed.
///
/// Two requests are the same if method, route, path, body, preconditions and the caller's role are. `body` is
/// what was understood of it, so `25.5` and `"25.50"`, or fields in another order, make no difference.
pub fn read_claim(
    headers: &HeaderMap,
    caller: Caller,
    method: &str,
    route: &str,
    path: &str,
    body: &impl Serialize,
) -> Result<Option<IdempotencyClaim>, ApiError> {
    let Some(key) = parse_key(headers)? else { return Ok(None) };
    Ok(Some(IdempotencyClaim {
        caller: caller.customer_id,
        key: stored_key(caller, &key),
        request_hash: hash_request([method, route, path], body)?,
        context_hash: hash_context(headers, caller),
    }))
}

/// The keys of a request's rows: row *n* has the key of the request, `#` and *n*.
pub(super) struct RowKeys {
    key: Option<String>,
    caller: Caller,
    route: &'static str,
    context_hash: [u8; 32],
}

impl RowKeys {
    /// Reads the key of the request, if it carries one; 400 if the key is malformed. Rows are sent by `POST` to `route`.
    pub(super) fn read(headers: &HeaderMap, caller: Caller, route: &'static str) -> Result<Self, ApiError> {
        Ok(Self { key: parse_key(headers)?, caller, route, context_hash: hash_context(headers, caller) })
    }

    /// The tenant in which the caller acts.
    pub(super) const fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    /// The claim of the request itself, under which no response is stored. `kind` distinguishes it from other requests to the route
    /// whose key is for all of it.
    pub(super) fn claim_request(&self, kind: &str) -> Result<Option<IdempotencyClaim>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        Ok(Some(IdempotencyClaim {
            caller: self.caller.customer_id,
            key: stored_key(self.caller, key),
            request_hash: hash_request(["POST", self.route, self.route], &kind)?,
            context_hash: self.context_hash,
        }))
    }

    /// The claim of a row. `body` is what was understood of it.
    pub(super) fn claim(
        &self,
        row: u64,
        body: &impl Serialize,
    ) -> Result<Option<IdempotencyClaim>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        Ok(Some(IdempotencyClaim {
            caller: self.caller.customer_id,
            key: stored_key(self.caller, &format!("{key}#{row}")),
            request_hash: hash_request(["POST", self.route, self.route], body)?,
            context_hash: self.context_hash,
        }))
    }
}

fn stored_key(caller: Caller, key: &str) -> String {
    IdempotencyClaim::stored_key(caller.tenant, caller.home, key)
}

fn hash_request(parts: [&str; 3], body: &impl Serialize) -> Result<[u8; 32], ApiError> {
    let mut hash = Sha256::new();
    for part in parts {
        // None of the parts can hold a line break.
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    hash.update(serde_json::to_vec(body).map_err(ApiError::internal)?);
    Ok(hash.finalize().into())
}

/// The hash of role and preconditions. They decide the response too: another `If-Match` may change what was refused, and an
/// administrator sees orders that a customer with the same number does not.
fn hash_context(headers: &HeaderMap, caller: Caller) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(caller.role.as_str());
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        hash.update(b"\n");
        // Several lines are one list, and space in it means nothing (RFC 9110, section 5.3).
        for (index, line) in headers.get_all(name).iter().enumerate() {
            if index > 0 {
                hash.update(b",");
            }
            for part in line.as_bytes().split(|byte| matches!(byte, b' ' | b'\t')) {
                hash.update(part);
            }
        }
    }
    hash.finalize().into()
}

/// Reads the key, bare or as a quoted string of structured fields (RFC 8941, section 3.3.3), which mean the same.
pub fn parse_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let malformed = |detail: &str| ApiError::new(Code::MalformedRequest, format!("Idempotency-Key {detail}"));
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(malformed("is given more than once"));
    }
    let text = line.as_bytes().trim_ascii();
    let key = match text.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted).ok_or_else(|| malformed("is not a well-formed quoted string"))?,
        None => text.to_vec(),
    };
    if !(1..=MAX_LENGTH).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        return Err(malformed("must be 1 to 255 visible ASCII characters"));
    }
    String::from_utf8(key).map(Some).map_err(|_| malformed("must be ASCII"))
}

/// Returns what stands between the quotes, the first of which has been taken.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let inside = quoted.strip_suffix(b"\"")?;
    let mut bytes = inside.iter().copied();
    let mut key = Vec::with_capacity(inside.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => key.push(bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\'))?),
            b'"' => return None,
            other => key.push(other),
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::{
        super::body::{parse_new_order, parse_update},
        *,
    };
    use crate::auth::Role;

    fn key(line: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        parse_key(&headers).unwrap_or(None)
    }

    #[test]
    fn bare_and_quoted_keys_are_the_same() {
        assert_eq!(key("abc-123").as_deref(), Some("abc-123"));
        assert_eq!(key("\"abc-123\"").as_deref(), Some("abc-123"));
        assert_eq!(key(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        assert_eq!(key(&"x".repeat(255)).as_deref().map(str::len), Some(255));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let too_long = "x".repeat(256);
        for line in ["", "\"\"", "a b", "\"a", "\"a\"b\"", "\"a\\x\"", "ä", "\"a\";q=1", "\"", &too_long] {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            let error = parse_key(&headers).expect_err(line);
            assert_eq!(error.code(), Code::MalformedRequest, "{line}");
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(parse_key(&twice).is_err());
        assert_eq!(parse_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn the_hash_differs_by_method_path_and_body() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
        let caller = Caller::at_home(TenantId::DEFAULT, 1.try_into().unwrap(), Role::Customer);
        let hash = |method, path, body: &str| {
            read_claim(&headers, caller, method, "/r", path, &body).unwrap().unwrap().request_hash
        };
        let first = hash("PUT", "/r/1", "x");
        assert_eq!(first, hash("PUT", "/r/1", "x"));
        for other in [hash("PATCH", "/r/1", "x"), hash("PUT", "/r/2", "x"), hash("PUT", "/r/1", "y")] {
            assert_ne!(first, other);
        }
    }

    /// A key that was used before an upgrade still stands for its request after it: without new fields the hash stays what it was.
    #[test]
    fn a_request_without_new_fields_has_the_hash_that_it_always_had() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
        let caller = Caller::at_home(TenantId::DEFAULT, 1.try_into().unwrap(), Role::Customer);
        let latest = time::macros::date!(2025 - 06 - 30);
        let hash = |claim: Option<IdempotencyClaim>| URL_SAFE_NO_PAD.encode(claim.unwrap().request_hash);
        let create = |body: &str| {
            let new = parse_new_order(body.as_bytes(), caller, latest).unwrap();
            let route = "/api/v1/orders";
            hash(read_claim(&headers, caller, "POST", route, route, &new).unwrap())
        };
        let lines = r#""lines":[{"product_id":1001,"quantity":2,"unit_price":25.5}]"#;
        let bare = create(&format!(r#"{{"order_date":"2025-01-20",{lines}}}"#));
        assert_eq!(bare, "t3LoE26qH6Bw0Bh6CQXzOG6D-ER2h3O6BcAYTZSFJEM");
        let none =
            create(&format!(r#"{{"order_date":"2025-01-20",{lines},"metadata":{{}},"reference":null}}"#));
        assert_eq!(none, bare);
        assert_ne!(create(&format!(r#"{{"order_date":"2025-01-20",{lines},"reference":"A"}}"#)), bare);

        let update = |body: &str| {
            let update = Some(parse_update(body.as_bytes(), latest).unwrap());
            let claim =
                read_claim(&headers, caller, "PATCH", "/api/v1/orders/{id}", "/api/v1/orders/7", &update);
            hash(claim.unwrap())
        };
        let bare = update(r#"{"status":"CONFIRMED"}"#);
        assert_eq!(bare, "BylGrfGsoRsTHGyJNeOxtDvDaA-NJDRwN88fH-4fwW0");
        assert_ne!(update(r#"{"status":"CONFIRMED","reference":null}"#), bare, "it takes the reference away");
    }

    #[test]
    fn the_context_differs_by_role_and_preconditions_and_not_by_how_they_are_written() {
        let context = |role, lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, line) in lines {
                headers.append(name, HeaderValue::from_static(line));
            }
            hash_context(&headers, Caller::at_home(TenantId::DEFAULT, 1.try_into().unwrap(), role))
        };
        let (if_match, if_none_match) = (header::IF_MATCH, header::IF_NONE_MATCH);
        let two = [(if_match.clone(), "\"1\", \"2\"")];
        for same in [
            &[(if_match.clone(), "\"1\",\"2\"")][..],
            &[(if_match.clone(), "\"1\""), (if_match.clone(), "\"2\"")],
        ] {
            assert_eq!(context(Role::Customer, &two), context(Role::Customer, same));
        }
        let all = [
            context(Role::Customer, &[]),
            context(Role::Admin, &[]),
            context(Role::Customer, &two),
            context(Role::Admin, &two),
            context(Role::Customer, &[(if_match.clone(), "\"1\"")]),
            context(Role::Customer, &[(if_match, "*")]),
            context(Role::Customer, &[(if_none_match, "\"1\"")]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }
}
