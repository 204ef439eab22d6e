//! Why a token does not open the API.

/// Why a token is refused. The client is told, because each asks for something else; it is 401 in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token, or not as a bearer token.
    #[error("a bearer token is required")]
    Missing,
    /// Not a token.
    #[error("the token cannot be read")]
    Malformed,
    /// Signed by an algorithm that is not accepted here.
    #[error("the token is signed in a way that is not accepted")]
    Algorithm,
    /// Not signed by a key that is accepted here.
    #[error("the token's signature is not valid")]
    Signature,
    /// A refresh token where an access token is asked for, or the reverse.
    #[error("the token is of the wrong type")]
    WrongType,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Spent before, or ended by a logout.
    #[error("the session is over: log in again")]
    SessionOver,
    /// Right in itself, but for somebody else: issuer, audience, or no customer named.
    #[error("the token is not meant for this service")]
    NotForUs,
}
