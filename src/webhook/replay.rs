//! The deliveries already seen: a repeated one has no effect.

use std::collections::{HashSet, VecDeque};

/// How many ids are kept. MLflow repeats a delivery for about ten seconds. If more than this arrive in that
/// time, a repetition costs one extra poll.
const MAX: usize = 2048;

/// The newest ids, up to a limit.
#[derive(Debug, Default)]
pub(super) struct ReplayCache {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl ReplayCache {
    /// Remembers an id and returns whether it was seen before.
    pub(super) fn is_replayed(&mut self, id: &str) -> bool {
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
    fn a_repetition_is_detected_and_the_cache_is_bounded() {
        let mut replay_cache = ReplayCache::default();
        assert!(!replay_cache.is_replayed("first"));
        assert!(replay_cache.is_replayed("first"));
        for number in 0..MAX * 3 {
            assert!(!replay_cache.is_replayed(&number.to_string()));
        }
        assert_eq!((replay_cache.order.len(), replay_cache.known.len()), (MAX, MAX));
        assert!(replay_cache.is_replayed(&(MAX * 3 - 1).to_string()));
        assert!(!replay_cache.is_replayed("first"), "the oldest is forgotten");
    }
}
