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

    /// Learns from a page, given the bytes of each of its items.
    pub fn fit(&mut self, sizes: impl ExactSizeIterator<Item = usize>) {
        let count = sizes.len();
        if let Some(average) = sizes.sum::<usize>().checked_div(count) {
            self.current = (self.bytes / average.max(1)).clamp(*self.items.start(), *self.items.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_about_the_wanted_bytes_within_its_bounds() {
        let mut size = PageSize::new(1000, 4..=100, 50);
        assert_eq!(size.items(), 50);
        for (page, expected) in
            [(&[10, 30][..], 50), (&[100], 10), (&[], 10), (&[0, 1], 100), (&[1], 100), (&[9000], 4)]
        {
            size.fit(page.iter().copied());
            assert_eq!(size.items(), expected, "after {page:?}");
        }
    }

    #[test]
    fn the_bounds_can_be_small() {
        for (fewest, most, first, expected) in [(16, 2, 50, 2), (0, 0, 0, 1), (16, 100, 1, 16)] {
            assert_eq!(PageSize::new(1000, fewest..=most, first).items(), expected);
        }
    }
}
