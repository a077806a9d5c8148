//! `laurel compare`: versions of a model side by side.

use std::{io::Write, path::PathBuf, str::FromStr};

use clap::Args;

use super::{
    CliError, ExitStatus, Output, RegistryArgs, files,
    table::{Row, table, terminal_width},
};
use crate::{
    api::{
        metric::Goal,
        names::{AliasName, ModelName, Version},
    },
    offline::{
        check::check,
        versions::{
            by_number,
            compare::{Comparison, compare},
            goals, measured,
        },
    },
};

/// Options of `laurel compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 success, 1 a version does not exist, 2 the query failed.")]
pub struct CompareOptions {
    /// The model's name in the registry.
    pub model: ModelName,

    /// The versions: numbers, or aliases as in `@champion`.
    #[arg(required = true, value_name = "VERSION")]
    pub versions: Vec<Which>,

    /// Manifests with the model's promotion rules, which define whether a larger or a smaller value of a
    /// metric is better.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// The registry to query.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A version, by its number or by an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// `4`
    Number(Version),
    /// `@champion`
    Alias(AliasName),
}

impl FromStr for Which {
    type Err = crate::api::names::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('@') {
            Some(alias) => alias.parse().map(Self::Alias),
            None => text.parse().map(Self::Number),
        }
    }
}

impl CompareOptions {
    /// Compares the versions and prints the result.
    ///
    /// # Errors
    /// When the query failed.
    pub async fn run(&self, mut out: impl Write) -> Result<ExitStatus, CliError> {
        let (_, known) = check(&files::read(&self.files)?);
        let registry = self.registry.connect()?;
        let model = registry.model(&self.model).await.map_err(CliError::because)?;
        let Some(model) = model else {
            return not_found(
                &mut out,
                format_args!("the model {:?} does not exist in the registry", self.model.as_str()),
            );
        };
        let mut numbers = Vec::new();
        for which in &self.versions {
            let number = match which {
                Which::Number(number) => *number,
                Which::Alias(alias) => match model.aliases.get(alias) {
                    Some(number) => *number,
                    None => return not_found(&mut out, format_args!("the alias @{alias} does not exist")),
                },
            };
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let read = by_number(registry.as_ref(), &self.model, &numbers).await.map_err(CliError::because)?;
        let mut versions = Vec::new();
        for (number, facts) in numbers.iter().zip(read) {
            match facts {
                Some(facts) => versions.push(facts),
                None => return not_found(&mut out, format_args!("version {number} does not exist")),
            }
        }
        let versions = measured(registry.as_ref(), versions).await;
        let goals = goals(&known.rules_of(self.model.as_str()));
        let comparison = compare(&model, &versions, &goals).map_err(CliError)?;
        let text = match self.output {
            Output::Text => text(&comparison, terminal_width()),
            Output::Json => {
                format!("{}\n", serde_json::to_string_pretty(&comparison).map_err(CliError::because)?)
            }
        };
        out.write_all(text.as_bytes()).map_err(CliError::because)?;
        Ok(ExitStatus::Good)
    }
}

fn not_found(out: &mut impl Write, message: std::fmt::Arguments) -> Result<ExitStatus, CliError> {
    writeln!(out, "{message}").map_err(CliError::because)?;
    Ok(ExitStatus::Bad)
}

fn text(comparison: &Comparison, width: usize) -> String {
    let sides = &comparison.versions;
    let row = |title: &str, cells: Vec<String>| Row::from([vec![title.to_owned()], cells].concat());
    let of = |cell: fn(&crate::offline::versions::compare::Side) -> String| {
        sides.iter().map(cell).collect::<Vec<_>>()
    };
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut rows = vec![
        row("VERSION", of(|side| side.version.to_string())),
        row("aliases", sides.iter().map(|side| or_none(&side.aliases.join(","))).collect()),
        row("state", of(|side| side.state.to_owned())),
        row("registered", of(|side| side.registered_at.to_string())),
        row("run", sides.iter().map(|side| or_none(side.run_id.as_deref().unwrap_or_default())).collect()),
    ];
    for metric in &comparison.metrics {
        let cells = metric.values.iter().zip(sides).map(|(value, side)| {
            let star = if metric.best.contains(&side.version) { " *" } else { "" };
            format!("{}{star}", value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
        });
        let goal = match metric.goal {
            Some(Goal::Maximize) => " (larger is better)",
            Some(Goal::Minimize) => " (smaller is better)",
            None => "",
        };
        rows.push(row(&format!("metric {}{goal}", metric.name), cells.collect()));
    }
    for tag in &comparison.tags {
        let shown =
            |value: &Option<String>| value.as_ref().map_or_else(|| "-".to_owned(), |value| one_line(value));
        rows.push(row(&format!("tag {}", tag.key), tag.values.iter().map(shown).collect()));
    }
    let has_best = comparison.metrics.iter().any(|metric| !metric.best.is_empty());
    format!("{}{}", table(&rows, width), if has_best { "* best of these versions\n" } else { "" })
}

/// Shortens a tag to one line: a tag may be long and have many lines.
fn one_line(value: &str) -> String {
    let line: Vec<_> = value.split_whitespace().collect();
    crate::api::condition::shortened(&line.join(" "), 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_given_by_its_number_or_alias() {
        assert_eq!("4".parse(), Ok(Which::Number(Version::new(4).unwrap())));
        assert_eq!("@champion".parse(), Ok(Which::Alias("champion".parse().unwrap())));
        for wrong in ["champion", "0", "@latest", "@", "04"] {
            assert!(wrong.parse::<Which>().is_err(), "{wrong}");
        }
    }
}
