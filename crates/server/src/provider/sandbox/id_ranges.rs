//! Which ids of the host sandboxes use: each slot a range of its own, as long as there are enough.

use std::collections::BTreeMap;

/// First of the host ids that sandboxes use.
const ID_BASE: u32 = 0x2000_0000;

/// Ids of one range.
const IDS: u32 = 65_536;

/// Ranges that there are from there on. Slots beyond that number share them.
const RANGES: u32 = (u32::MAX - ID_BASE) / IDS;

/// The ranges in use.
#[derive(Debug, Default)]
pub struct IdRanges {
    /// How often each is used, by the first of its ids.
    used: BTreeMap<u32, u32>,
    next: u32,
}

impl IdRanges {
    /// A range that nobody uses, the one longest unused if no slot of it is known; its first id.
    pub fn take(&mut self) -> u32 {
        let bases = (0..RANGES).map(|step| base((self.next + step) % RANGES));
        let free = bases.into_iter().find(|base| !self.used.contains_key(base));
        let taken = free.unwrap_or_else(|| base(self.next));
        self.next = ((taken - ID_BASE) / IDS + 1) % RANGES;
        self.claim(taken);
        taken
    }

    /// A range is in use, by somebody who was there before.
    pub fn claim(&mut self, base: u32) {
        *self.used.entry(base).or_default() += 1;
    }

    /// Nobody runs in it any more who claimed it once.
    pub fn give_back(&mut self, base: u32) {
        if let Some(count) = self.used.get_mut(&base) {
            *count -= 1;
            if *count == 0 {
                self.used.remove(&base);
            }
        }
    }
}

fn base(number: u32) -> u32 {
    ID_BASE + number * IDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_meet_and_come_back_last() {
        let mut ranges = IdRanges::default();
        ranges.claim(base(1));
        let (first, second) = (ranges.take(), ranges.take());
        assert_eq!((first, second), (base(0), base(2)));
        ranges.give_back(first);
        assert_eq!(ranges.take(), base(3));
        for number in 4..RANGES {
            assert_eq!(ranges.take(), base(number));
        }
        assert_eq!(ranges.take(), first, "its turn has come again");
        assert!(ranges.take().checked_add(IDS).is_some(), "with none left they are shared");
        assert!(base(RANGES - 1).checked_add(IDS - 1).is_some_and(|last| last < u32::MAX));
    }
}
