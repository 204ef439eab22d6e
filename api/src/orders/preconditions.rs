//! The preconditions of a request (RFC 9110, section 13), compared with the version of an order.
//!
//! `crate::http::orders::conditional` reads them from headers.

/// What a request demands of the current version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// `If-Match`.
    pub if_match: Option<EntityTags>,
    /// `If-None-Match`.
    pub if_none_match: Option<EntityTags>,
}

/// The tags of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: any version.
    Any,
    /// These.
    Listed(Vec<EntityTag>),
}

/// A tag as it stands in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    /// Whether it begins with `W/`.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: Vec<u8>,
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Preconditions {
    /// Whether a request can change this version. For reads, `If-None-Match` decides something else:
    /// [`Preconditions::not_modified`].
    pub fn allow_change_of(&self, version: i64) -> bool {
        self.allow_read_of(version) && !self.not_modified(&version.to_string())
    }

    /// Whether this version can be shown: `If-Match` compares strongly, so a weak tag never matches.
    pub fn allow_read_of(&self, version: i64) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.contain(&version.to_string(), Comparison::Strong))
    }

    /// Whether the client already has what this tag, without its quotes, stands for: `If-None-Match` compares weakly.
    pub fn not_modified(&self, tag: &str) -> bool {
        self.if_none_match.as_ref().is_some_and(|tags| tags.contain(tag, Comparison::Weak))
    }
}

impl EntityTags {
    fn contain(&self, wanted: &str, comparison: Comparison) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => {
                let allowed = |tag: &EntityTag| comparison == Comparison::Weak || !tag.weak;
                tags.iter().any(|tag| allowed(tag) && tag.opaque == wanted.as_bytes())
            }
        }
    }
}

/// The `ETag` of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}
