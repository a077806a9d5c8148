//! The deliveries that were seen: a repetition wakes nobody.

use std::collections::{HashSet, VecDeque};

/// How many ids are kept. MLflow repeats a delivery for about ten seconds; more than these in that time, and a repetition
/// costs one read too many.
const MAX: usize = 2048;

/// The newest ids, in a bounded memory.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl Repeats {
    /// Notes an id; whether it was seen before.
    pub(super) fn is_repeated(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return true;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_known_and_the_memory_is_bounded() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeated("first"));
        assert!(repeats.is_repeated("first"));
        for number in 0..MAX * 3 {
            assert!(!repeats.is_repeated(&number.to_string()));
        }
        assert_eq!((repeats.order.len(), repeats.known.len()), (MAX, MAX));
        assert!(repeats.is_repeated(&(MAX * 3 - 1).to_string()));
        assert!(!repeats.is_repeated("first"), "the oldest is forgotten");
    }
}
