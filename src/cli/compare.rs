//! `laurel compare`: versions of a model side by side.

use std::{io::Write, path::PathBuf, str::FromStr};

use clap::Args;

use super::{CliError, ExitStatus, Output, RegistryArgs, files, table};
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

/// Which versions to show.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 they are shown, 1 one of them does not exist, 2 it could not be asked."
)]
pub struct CompareOptions {
    /// The model's name in the registry.
    pub model: ModelName,

    /// The versions: numbers, or aliases as in `@champion`.
    #[arg(required = true, value_name = "VERSION")]
    pub versions: Vec<Which>,

    /// Manifests in which the model's promotion rules stand: they say for which metrics more is better, and for which less.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// Which registry is asked.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// How they are shown.
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
    /// Compares, and prints.
    ///
    /// # Errors
    /// When it could not be asked.
    pub async fn run(&self, mut out: impl Write) -> Result<ExitStatus, CliError> {
        let (_, known) = check(&files::read(&self.files)?);
        let registry = self.registry.connect()?;
        let model = registry.model(&self.model).await.map_err(CliError::because)?;
        let Some(model) = model else {
            return nothing(
                &mut out,
                format_args!("the model {:?} is not in the registry", self.model.as_str()),
            );
        };
        let mut numbers = Vec::new();
        for which in &self.versions {
            let number = match which {
                Which::Number(number) => *number,
                Which::Alias(alias) => match model.aliases.get(alias) {
                    Some(number) => *number,
                    None => return nothing(&mut out, format_args!("@{alias} names no version")),
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
                None => return nothing(&mut out, format_args!("version {number} does not exist")),
            }
        }
        let versions = measured(registry.as_ref(), versions).await;
        let goals = goals(&known.rules_of(self.model.as_str()));
        let comparison = compare(&model, &versions, &goals).map_err(CliError)?;
        let text = match self.output {
            Output::Text => text(&comparison),
            Output::Json => {
                format!("{}\n", serde_json::to_string_pretty(&comparison).map_err(CliError::because)?)
            }
        };
        out.write_all(text.as_bytes()).map_err(CliError::because)?;
        Ok(ExitStatus::Good)
    }
}

fn nothing(out: &mut impl Write, why: std::fmt::Arguments) -> Result<ExitStatus, CliError> {
    writeln!(out, "{why}").map_err(CliError::because)?;
    Ok(ExitStatus::Bad)
}

fn text(comparison: &Comparison) -> String {
    let sides = &comparison.versions;
    let row = |title: &str, cells: Vec<String>| [vec![title.to_owned()], cells].concat();
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
            Some(Goal::Maximize) => " (more is better)",
            Some(Goal::Minimize) => " (less is better)",
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
    format!("{}{}", table(&rows), if has_best { "* the best of these\n" } else { "" })
}

/// A tag may be long, and of many lines.
fn one_line(value: &str) -> String {
    let line: Vec<_> = value.split_whitespace().collect();
    crate::api::condition::shortened(&line.join(" "), 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_number_or_alias() {
        assert_eq!("4".parse(), Ok(Which::Number(Version::new(4).unwrap())));
        assert_eq!("@champion".parse(), Ok(Which::Alias("champion".parse().unwrap())));
        for wrong in ["champion", "0", "@latest", "@", "04"] {
            assert!(wrong.parse::<Which>().is_err(), "{wrong}");
        }
    }
}
