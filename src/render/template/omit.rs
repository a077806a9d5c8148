//! Paths that the user removes from what Laurel renders: `spec.containers[model].livenessProbe`.

use serde_json::Value;

use super::{
    TemplateError,
    merge::{self, Keys},
};

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// `.name`, or `["name"]`.
    Field(&'a str),
    /// `[key]`: the item of a list with this key.
    Item(&'a str),
}

/// Removes these paths, and reports those that match nothing.
pub(super) fn omit(rendered: &mut Value, paths: &[String]) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let problem = match steps(path) {
            None => "is not a path such as spec.containers[model].livenessProbe; correct it".to_owned(),
            Some(steps) if remove(rendered, "", &steps) => continue,
            Some(_) => format!("Laurel renders nothing at {path:?}; correct the path or remove it"),
        };
        errors.push(TemplateError { path: format!("serving.templateOmit[{index}]"), problem });
    }
    errors
}

fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, after) = quoted.split_once("\"]")?;
            (Step::Field(name), after)
        } else if let Some(bracketed) = rest.strip_prefix('[') {
            let (key, after) = bracketed.split_once(']')?;
            (Step::Item(key), after)
        } else {
            let name = if steps.is_empty() { rest } else { rest.strip_prefix('.')? };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            (Step::Field(&name[..end]), &name[end..])
        };
        let (Step::Field(name) | Step::Item(name)) = step;
        if name.is_empty() {
            return None;
        }
        steps.push(step);
        rest = after;
    }
    (!steps.is_empty()).then_some(steps)
}

/// Removes the place at `steps` from `value`, which is the field `name`. Returns whether it existed.
fn remove(value: &mut Value, name: &str, steps: &[Step<'_>]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return false };
    match (step, value) {
        (Step::Field(field), Value::Object(fields)) => {
            if rest.is_empty() {
                return fields.remove(*field).is_some();
            }
            fields.get_mut(*field).is_some_and(|value| remove(value, field, rest))
        }
        (Step::Item(key), Value::Array(items)) => {
            let at = merge::keys(name).and_then(|keys| position(items, &keys, key));
            match at {
                Some(at) if rest.is_empty() => {
                    items.remove(at);
                    true
                }
                Some(at) => remove(&mut items[at], name, rest),
                None => false,
            }
        }
        _ => false,
    }
}

fn position(items: &[Value], keys: &Keys, key: &str) -> Option<usize> {
    items.iter().position(|item| match &item[keys.required] {
        Value::String(text) => text == key,
        other => *other.to_string() == *key,
    })
}
