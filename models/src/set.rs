//! A set of small numbers.

use std::fmt;

/// A set of numbers below 16.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SmallSet(u16);

impl SmallSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Adds a number.
    pub fn insert(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    /// Whether the number is in the set.
    pub fn contains(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// The numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |number| self.contains(*number))
    }
}

impl FromIterator<u8> for SmallSet {
    fn from_iter<T: IntoIterator<Item = u8>>(numbers: T) -> Self {
        let mut set = Self::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}

impl fmt::Debug for SmallSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.numbers()).finish()
    }
}
