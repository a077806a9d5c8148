//! What a story costs the API server and the registry.

use std::collections::BTreeMap;

use crate::status::Applied;

/// How often the operator has written what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::decide::tests) struct Cost {
    /// Writes of the status of the ModelAlias.
    pub(in crate::decide::tests) statuses: usize,
    /// Events.
    pub(in crate::decide::tests) events: usize,
    /// Actions that were done or begun, by name.
    pub(in crate::decide::tests) actions: BTreeMap<&'static str, usize>,
}

impl Cost {
    pub(super) fn add(&mut self, applied: &Applied, events: usize) {
        self.events += events;
        for action in applied.done.iter().chain(&applied.begun) {
            *self.actions.entry(action.into()).or_default() += 1;
        }
    }
}
