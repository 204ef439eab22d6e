//! Rules for the head of a request: what two servers in a row could read in two ways is refused.

use axum::http::{HeaderMap, HeaderValue, Version, header};

use crate::http::error::{ApiError, Code};

/// Checks what HTTP requires of every request.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    check_host(version, headers)?;
    check_transfer_encoding(headers)
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 without a `Host`, or with several, is refused.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        _ => Err(ApiError::new(Code::MalformedRequest, "exactly one Host header is needed")),
    }
}

/// RFC 9112, section 6.1: a transfer coding that is not supported is 501. `chunked` is the only one, and it can be
/// applied only once. (hyper reads whatever ends with `chunked`, and refuses the rest.)
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings: Vec<&str> = lines
        .flat_map(|line| line.to_str().unwrap_or("not text").split(','))
        .map(str::trim)
        .filter(|coding| !coding.is_empty())
        .collect();
    let error = if codings.iter().any(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        ApiError::new(Code::NotImplemented, "no Transfer-Encoding is supported but chunked")
    } else if codings.len() > 1 {
        ApiError::new(Code::MalformedRequest, "a body can be chunked only once")
    } else {
        return Ok(());
    };
    Err(error.with_header(header::CONNECTION, HeaderValue::from_static("close")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(lines: &[&str]) -> Option<u16> {
        let lines = lines.iter().map(|line| (header::TRANSFER_ENCODING, line.parse().unwrap()));
        check_transfer_encoding(&lines.collect()).err().map(|error| error.status().as_u16())
    }

    #[test]
    fn chunked_once_is_the_only_transfer_encoding() {
        for supported in [&[][..], &["chunked"], &["Chunked"], &[" , chunked"]] {
            assert_eq!(status(supported), None, "{supported:?}");
        }
        for unsupported in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked, identity"],
            &["chunked;q=1"],
            &["\u{e4}"],
        ] {
            assert_eq!(status(unsupported), Some(501), "{unsupported:?}");
        }
        assert_eq!(status(&["chunked, chunked"]), Some(400));
    }
}
