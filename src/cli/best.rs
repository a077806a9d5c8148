//! `laurel best`: the version that `follow.best` would choose.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::{
    CliError, ExitStatus, Output, RegistryArgs,
    table::{Row, table, terminal_width},
};
use crate::{
    api::{metric::Goal, names::ModelName},
    decide::NEWEST,
    offline::versions::{
        best::{BestVersion, Question, best},
        measured,
    },
};

/// How many versions are listed.
const SHOWN: usize = 10;

/// Options of `laurel best`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 found, 1 none found, 2 the query failed. For the number alone: -o json | jq \
                  -r .version"
)]
pub struct BestOptions {
    /// The model's name in the registry.
    pub model: ModelName,

    /// The name of the metric in the runs.
    #[arg(long, value_name = "NAME")]
    pub metric: String,

    /// Whether a larger or a smaller value is better.
    #[arg(long, value_enum, default_value_t = GoalArg::Maximize, ignore_case = true)]
    pub goal: GoalArg,

    /// Consider only versions with this tag. May be repeated.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,

    /// The registry to query.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Whether a larger or a smaller value is better, as in manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum GoalArg {
    /// Larger is better.
    Maximize,
    /// Smaller is better.
    Minimize,
}

impl From<GoalArg> for Goal {
    fn from(goal: GoalArg) -> Self {
        match goal {
            GoalArg::Maximize => Self::Maximize,
            GoalArg::Minimize => Self::Minimize,
        }
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "expected KEY=VALUE".to_owned())
}

impl BestOptions {
    /// Finds the best version and prints it.
    ///
    /// # Errors
    /// When the query failed.
    pub async fn run(&self, mut out: impl Write) -> Result<ExitStatus, CliError> {
        let registry = self.registry.connect()?;
        let model = registry.model(&self.model).await.map_err(CliError::because)?;
        let Some(model) = model else {
            writeln!(out, "the model {:?} does not exist in the registry", self.model.as_str())
                .map_err(CliError::because)?;
            return Ok(ExitStatus::Bad);
        };
        let newest = registry.newest_versions(&self.model, NEWEST).await.map_err(CliError::because)?;
        let versions = measured(registry.as_ref(), newest).await;
        let tags = self.tags.iter().cloned().collect();
        let question = Question { metric: self.metric.clone(), goal: self.goal.into(), tags };
        let answer = best(&question, &model, &versions).map_err(CliError)?;
        let text = match self.output {
            Output::Text => text(&answer, terminal_width()),
            Output::Json => {
                format!("{}\n", serde_json::to_string_pretty(&answer).map_err(CliError::because)?)
            }
        };
        out.write_all(text.as_bytes()).map_err(CliError::because)?;
        Ok(if answer.version.is_some() { ExitStatus::Good } else { ExitStatus::Bad })
    }
}

fn text(answer: &BestVersion, width: usize) -> String {
    let head = match (&answer.version, &answer.reason) {
        (Some(version), _) => {
            format!("version {version} of {} is the best by {}\n", answer.model, answer.metric)
        }
        (None, reason) => format!("none: {}\n", reason.as_deref().unwrap_or_default()),
    };
    let title = ["VERSION", &answer.metric, "ALIASES"].map(str::to_owned).to_vec();
    let rows = answer.candidates.iter().take(SHOWN).map(|it| {
        let value = it.value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        vec![it.version.to_string(), value, it.aliases.join(",")]
    });
    let rows: Vec<Row> = [title].into_iter().chain(rows).map(Row::from).collect();
    let more = answer.candidates.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("and {more} more\n") } else { String::new() };
    let ranked = if answer.candidates.is_empty() { String::new() } else { table(&rows, width) };
    format!("{head}{ranked}{more}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tag_is_a_key_and_a_value() {
        assert_eq!(super::tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(super::tag("a").is_err() && super::tag("=b").is_err());
        assert_eq!(super::tag("a="), Ok(("a".to_owned(), String::new())));
    }
}
