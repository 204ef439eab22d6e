//! Conditional requests (RFC 9110, section 13): reading `If-Match` and `If-None-Match`, and answering reads with 304.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use crate::{
    http::error::{ApiError, Code},
    orders::preconditions::{EntityTag, EntityTags, Preconditions},
};

/// Responses are the caller's alone, and are asked for again each time, which the `ETag` makes cheap.
const CACHE_CONTROL: (HeaderName, &str) = (header::CACHE_CONTROL, "private, no-cache");

/// Reads both headers; 400 if one is not what RFC 9110 allows.
pub fn parse_preconditions(headers: &HeaderMap) -> Result<Preconditions, ApiError> {
    Ok(Preconditions {
        if_match: parse_tags(headers, &header::IF_MATCH)?,
        if_none_match: parse_tags(headers, &header::IF_NONE_MATCH)?,
    })
}

/// 200 with the body, or 304 if the client already has what `tag`, without its quotes, stands for.
pub(in crate::http) fn respond_if_modified(
    preconditions: &Preconditions,
    tag: &str,
    body: Bytes,
) -> Response {
    let etag = (header::ETAG, format!("\"{tag}\""));
    if preconditions.not_modified(tag) {
        return (StatusCode::NOT_MODIFIED, [etag], [CACHE_CONTROL]).into_response();
    }
    ([etag], [CACHE_CONTROL, (header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// All lines of a header as one list, which is what several lines mean.
fn parse_tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<EntityTags>, ApiError> {
    let malformed = || {
        let detail = format!("{name} must be `*` or a list of entity tags such as \"1\", \"2\"");
        ApiError::new(Code::MalformedRequest, detail)
    };
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let text = lines.join(&b", "[..]);
    if text.trim_ascii() == b"*" {
        return Ok(Some(EntityTags::Any));
    }
    let tags = parse_tag_list(&text).ok_or_else(malformed)?;
    if tags.is_empty() { Err(malformed()) } else { Ok(Some(EntityTags::Listed(tags))) }
}

/// `#entity-tag`: empty elements are allowed and mean nothing.
fn parse_tag_list(mut rest: &[u8]) -> Option<Vec<EntityTag>> {
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return Some(tags);
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let inside = quoted.strip_prefix(b"\"")?;
        let length = inside.iter().position(|byte| *byte == b'"')?;
        let (opaque, after) = inside.split_at(length);
        // etagc: visible characters but the quote, and what lies beyond ASCII.
        if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push(EntityTag { weak, opaque: opaque.to_vec() });
        rest = after[1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &HeaderName, lines: &[&str]) -> Result<Preconditions, ApiError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        parse_preconditions(&headers)
    }

    #[test]
    fn if_match_compares_strongly() {
        for (lines, matches) in [
            (&["\"3\""][..], true),
            (&["\"2\", \"3\""], true),
            (&["\"2\"", "\"3\""], true),
            (&[" , \"3\" ,, "], true),
            (&["*"], true),
            (&["W/\"3\""], false),
            (&["\"2\""], false),
            (&["\"\""], false),
            (&["\"03\""], false),
            (&["\"3,4\""], false),
        ] {
            let preconditions = parse(&header::IF_MATCH, lines).unwrap();
            assert_eq!(preconditions.allow_change_of(3), matches, "{lines:?}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (lines, matches) in [
            (&["\"3\""][..], true),
            (&["W/\"3\""], true),
            (&["\"1\", W/\"3\""], true),
            (&["*"], true),
            (&["\"2\""], false),
        ] {
            let preconditions = parse(&header::IF_NONE_MATCH, lines).unwrap();
            assert_eq!(preconditions.not_modified("3"), matches, "{lines:?}");
            assert_eq!(preconditions.allow_change_of(3), !matches, "{lines:?}");
            assert!(preconditions.allow_read_of(3));
        }
    }

    #[test]
    fn malformed_tags_are_refused() {
        for line in
            ["3", "\"3", "3\"", "w/\"3\"", "\"3\" \"4\"", "\"a b\"", "*, \"3\"", "", ",", "W/3", "\"\t\""]
        {
            let error = parse(&header::IF_MATCH, &[line]).expect_err(line);
            assert_eq!(error.code(), Code::MalformedRequest);
        }
    }

    #[test]
    fn without_headers_everything_is_allowed() {
        let preconditions = Preconditions::default();
        assert!(preconditions.allow_change_of(1) && preconditions.allow_read_of(1));
        assert!(!preconditions.not_modified("1"));
    }
}
