//! Paths of fields, as the API server writes them: `spec.containers[0].env`.

use std::fmt;

/// A path in the template. Each step links to its parent, so walking a tree allocates nothing.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    before: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    /// The template itself.
    pub(super) fn root() -> Self {
        Self::of("serving.template")
    }

    /// A place elsewhere in the spec.
    pub(super) fn of(field: &'a str) -> Self {
        Self { before: None, step: Step::Field(field) }
    }

    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Self { before: Some(self), step: Step::Field(name) }
    }

    pub(super) fn item(&'a self, index: usize) -> Self {
        Self { before: Some(self), step: Step::Item(index) }
    }

    /// Returns the name of this field, or of the list that this is an item of.
    pub(super) fn last_field(&self) -> &str {
        match (self.step, self.before) {
            (Step::Field(name), _) => name,
            (Step::Item(_), Some(before)) => before.last_field(),
            (Step::Item(_), None) => "",
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            before.fmt(f)?;
        }
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match self.step {
            Step::Item(index) => write!(f, "[{index}]"),
            Step::Field(name) if self.before.is_none() => f.write_str(name),
            Step::Field(name) if plain(name) => write!(f, ".{name}"),
            Step::Field(name) => write!(f, "[{name:?}]"),
        }
    }
}
