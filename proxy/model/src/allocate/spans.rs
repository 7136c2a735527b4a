//! Sets of numbers that are mostly runs: the lowest number that is not in one is found at once.

use std::collections::BTreeMap;

/// A set of numbers, as runs by their first number.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    runs: BTreeMap<u128, u128>,
}

impl Spans {
    /// Puts a number in.
    pub(super) fn insert(&mut self, number: u128) {
        if self.run_of(number).is_some() {
            return;
        }
        let before = number.checked_sub(1).and_then(|before| self.run_of(before));
        let (first, mut last) = (before.map_or(number, |(first, _)| first), number);
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.runs.remove(&after)
        {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, number: u128) {
        let Some((first, last)) = self.run_of(number) else { return };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
    }

    /// The lowest number from `from` to `to` that is not in it.
    pub(super) fn gap(&self, from: u128, to: u128) -> Option<u128> {
        let free = match self.run_of(from) {
            Some((_, last)) => last.checked_add(1)?,
            None => from,
        };
        (free <= to).then_some(free)
    }

    fn run_of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.runs.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Spans;

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_put_in(
            history in prop::collection::vec((any::<bool>(), 0u128..24), 1..80),
        ) {
            let (mut spans, mut set) = (Spans::default(), BTreeSet::new());
            for (puts, number) in history {
                if puts {
                    spans.insert(number);
                    set.insert(number);
                } else {
                    spans.remove(number);
                    set.remove(&number);
                }
                for from in 0..24 {
                    let gap = (from..=20).find(|number| !set.contains(number));
                    prop_assert_eq!(spans.gap(from, 20), gap);
                }
            }
        }
    }
}
