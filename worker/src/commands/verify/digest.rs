//! A digest of a set: equal for equal sets, whatever the order of their members.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The sum of the members' hashes. Unlike with exclusive or, a member that is there twice counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    sum: u128,
    count: u64,
}

impl Digest {
    /// Adds a member, given by its parts.
    pub(super) fn add(&mut self, parts: &[&[u8]]) {
        let mut hasher = Sha256::new();
        for part in parts {
            // The length keeps `ab|c` apart from `a|bc`.
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let hash = hasher.finalize();
        let half: [u8; 16] = std::array::from_fn(|at| hash[at]);
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(half));
        self.count += 1;
    }

    /// How many members there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(members: &[&[&[u8]]]) -> Digest {
        let mut digest = Digest::default();
        for member in members {
            digest.add(member);
        }
        digest
    }

    #[test]
    fn the_order_of_members_does_not_matter_and_everything_else_does() {
        let (a, b): (&[&[u8]], &[&[u8]]) = (&[b"1", b"23"], &[b"4"]);
        assert_eq!(digest(&[a, b]), digest(&[b, a]));
        assert_ne!(digest(&[a, b]), digest(&[a]));
        assert_ne!(digest(&[a, a, b]), digest(&[b]));
        assert_ne!(digest(&[a]), digest(&[&[b"12", b"3"]]));
    }
}
