//! Conditional requests (RFC 9110, section 13): `If-Match` and `If-None-Match` against the version of an order.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::error::{ApiError, Code};

/// What a request demands of the current version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: any version.
    Any,
    Listed(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: Vec<u8>,
}

impl Preconditions {
    /// Reads both headers; 400 where one is not what RFC 9110 allows.
    pub fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self {
            if_match: tags(headers, &header::IF_MATCH)?,
            if_none_match: tags(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether a request on this version may go on. For reads, `If-None-Match` decides something else:
    /// [`Preconditions::not_modified`].
    pub fn allow_change_of(&self, version: i64) -> bool {
        self.allow_read_of(version) && !self.not_modified(version)
    }

    /// Whether this version may be shown: `If-Match` compares strongly, so a weak tag never matches.
    pub fn allow_read_of(&self, version: i64) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.contain(&version.to_string(), Comparison::Strong))
    }

    /// Whether the client has this version already: `If-None-Match` compares weakly.
    pub fn not_modified(&self, version: i64) -> bool {
        self.if_none_match.as_ref().is_some_and(|tags| tags.contain(&version.to_string(), Comparison::Weak))
    }

    /// The same for what has another tag than a version, given without its quotes.
    pub fn not_modified_tag(&self, tag: &str) -> bool {
        self.if_none_match.as_ref().is_some_and(|tags| tags.contain(tag, Comparison::Weak))
    }
}

/// RFC 9110, section 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Tags {
    fn contain(&self, wanted: &str, comparison: Comparison) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => {
                let allowed = |tag: &Tag| comparison == Comparison::Weak || !tag.weak;
                tags.iter().any(|tag| allowed(tag) && tag.opaque == wanted.as_bytes())
            }
        }
    }
}

/// The `ETag` of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// All lines of a header as one list, which is what several lines mean.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
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
        return Ok(Some(Tags::Any));
    }
    let tags = listed(&text).ok_or_else(malformed)?;
    if tags.is_empty() { Err(malformed()) } else { Ok(Some(Tags::Listed(tags))) }
}

/// `#entity-tag`: empty elements are allowed and mean nothing.
fn listed(mut rest: &[u8]) -> Option<Vec<Tag>> {
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
        tags.push(Tag { weak, opaque: opaque.to_vec() });
        rest = after[1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &HeaderName, lines: &[&str]) -> Result<Preconditions, ApiError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Preconditions::parse(&headers)
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
            let preconditions = read(&header::IF_MATCH, lines).unwrap();
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
            let preconditions = read(&header::IF_NONE_MATCH, lines).unwrap();
            assert_eq!(preconditions.not_modified(3), matches, "{lines:?}");
            assert_eq!(preconditions.allow_change_of(3), !matches, "{lines:?}");
            assert!(preconditions.allow_read_of(3));
        }
    }

    #[test]
    fn malformed_tags_are_refused() {
        for line in
            ["3", "\"3", "3\"", "w/\"3\"", "\"3\" \"4\"", "\"a b\"", "*, \"3\"", "", ",", "W/3", "\"\t\""]
        {
            let error = read(&header::IF_MATCH, &[line]).expect_err(line);
            assert_eq!(error.code(), Code::MalformedRequest);
        }
    }

    #[test]
    fn without_headers_everything_is_allowed() {
        let preconditions = Preconditions::default();
        assert!(preconditions.allow_change_of(1) && preconditions.allow_read_of(1));
        assert!(!preconditions.not_modified(1));
    }
}
