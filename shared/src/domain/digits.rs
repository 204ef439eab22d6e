//! Texts of a known length that are mostly digits, in place: every order and every event has several of them.

use std::{fmt, ops::Range};

/// A text of `N` bytes of ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    /// Begins with this text.
    pub(crate) const fn new(text: [u8; N]) -> Self {
        Self(text)
    }

    /// A number with leading zeros, so that the order of texts is that of numbers.
    pub(crate) fn of(number: u64) -> Self {
        let mut text = Self([b'0'; N]);
        text.put(0..N, number);
        text
    }

    /// Puts a number of as many digits as there is room for.
    pub(crate) fn put(&mut self, places: Range<usize>, mut number: u64) {
        for place in self.0[places].iter_mut().rev() {
            *place = b"0123456789"[(number % 10) as usize];
            number /= 10;
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // ASCII alone: always text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const N: usize> AsRef<str> for Digits<N> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for Digits<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_all_their_places() {
        assert_eq!(Digits::<20>::of(7).as_str(), "00000000000000000007");
        assert_eq!(Digits::<20>::of(u64::MAX).as_str(), "18446744073709551615");
        let mut text = Digits::new(*b"0-00");
        text.put(2..4, 45);
        assert_eq!(format!("{text:>6}"), "  0-45");
    }
}
