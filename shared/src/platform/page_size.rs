//! How many items to read at a time, so that they do not take more memory the larger they are.

use std::ops::RangeInclusive;

/// How many items to read next: about as many as have the wanted bytes together, if they are as large as the last ones.
#[derive(Clone, Debug)]
pub struct PageSize {
    bytes: usize,
    items: RangeInclusive<usize>,
    current: usize,
}

impl PageSize {
    /// Pages of about `bytes`, but so many `items`; `first` of them as long as nothing is known about their size.
    pub fn new(bytes: usize, items: RangeInclusive<usize>, first: usize) -> Self {
        let most = (*items.end()).max(1);
        let items = (*items.start()).clamp(1, most)..=most;
        Self { bytes, current: first.clamp(*items.start(), most), items }
    }

    /// How many items to read next.
    pub const fn items(&self) -> usize {
        self.current
    }

    /// Learns from a page, given the bytes of each of its items. Only full pages let the next ones grow, and not faster than twofold:
    /// a few small items say nothing about the many that may come.
    pub fn fit(&mut self, sizes: impl ExactSizeIterator<Item = usize>) {
        let count = sizes.len();
        let Some(average) = sizes.sum::<usize>().checked_div(count) else { return };
        let most = if count >= self.current { self.current.saturating_mul(2) } else { self.current };
        let wanted = (self.bytes / average.max(1)).min(most);
        self.current = wanted.clamp(*self.items.start(), *self.items.end());
    }

    /// Learns that a page could not be read, perhaps because it was too large.
    pub fn shrink(&mut self) {
        self.current = (self.current / 2).max(*self.items.start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_about_the_wanted_bytes_within_its_bounds() {
        let mut size = PageSize::new(1000, 4..=100, 50);
        assert_eq!(size.items(), 50);
        for (count, bytes, expected) in [
            (2, 20, 50),
            (1, 100, 10),
            (0, 0, 10),
            (9, 1, 10),
            (10, 1, 20),
            (20, 40, 25),
            (25, 0, 50),
            (50, 0, 100),
            (100, 1, 100),
            (1, 9000, 4),
        ] {
            size.fit(std::iter::repeat_n(bytes, count));
            assert_eq!(size.items(), expected, "after {count} of {bytes} bytes");
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_is_halved_down_to_the_fewest() {
        let mut size = PageSize::new(1000, 4..=100, 50);
        for expected in [25, 12, 6, 4, 4] {
            size.shrink();
            assert_eq!(size.items(), expected);
        }
    }

    #[test]
    fn the_bounds_can_be_small() {
        for (fewest, most, first, expected) in [(16, 2, 50, 2), (0, 0, 0, 1), (16, 100, 1, 16)] {
            assert_eq!(PageSize::new(1000, fewest..=most, first).items(), expected);
        }
    }
}
