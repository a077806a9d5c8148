//! The events of a watch as changes of single objects. A new list says what is there; what it does not name
//! was deleted while nobody watched.

use std::collections::HashSet;

use kube::runtime::watcher::Event;

/// What the list that is being read has named so far.
#[derive(Debug)]
pub(super) struct Relist<Key>(HashSet<Key>);

impl<Key> Default for Relist<Key> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

/// A change of one object.
pub(super) enum Change<'a, Key, K> {
    /// It exists, and this is what it says now.
    There(Key, &'a K),
    /// It is gone.
    Gone(Key),
}

impl<'a, Key, K> Change<'a, Key, K> {
    /// Returns its key, and the object if it exists.
    pub(super) fn parts(self) -> (Key, Option<&'a K>) {
        match self {
            Change::There(key, object) => (key, Some(object)),
            Change::Gone(key) => (key, None),
        }
    }
}

impl<Key: Clone + Eq + std::hash::Hash> Relist<Key> {
    /// Returns the changes that an event makes; `known` lists the objects that are known.
    pub(super) fn changes<'a, K>(
        &mut self,
        event: &'a Event<K>,
        key: impl Fn(&K) -> Key,
        known: impl FnOnce() -> Vec<Key>,
    ) -> Vec<Change<'a, Key, K>> {
        match event {
            Event::Init => {
                self.0.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = key(object);
                self.0.insert(key.clone());
                vec![Change::There(key, object)]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.0);
                known().into_iter().filter(|key| !listed.contains(key)).map(Change::Gone).collect()
            }
            Event::Apply(object) => vec![Change::There(key(object), object)],
            Event::Delete(object) => vec![Change::Gone(key(object))],
        }
    }
}
