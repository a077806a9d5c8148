//! `laurel history`: what was live when, who requested it and why, from the registry's tags alone.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    CliError, ExitStatus, Output, RegistryArgs,
    table::{Row, table, terminal_width},
};
use crate::{
    api::{
        model_alias::{Cause, Outcome},
        names::{AliasName, ModelName},
    },
    audit::{Line, Log, Span},
    registry::Registry,
};

/// Maximum number of versions to read.
const VERSIONS_MAX: usize = 20_000;

/// The exit codes for `--help`.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 an entry was found; 1 the log has no entry, or nothing \
     was live then; 2 the query failed: wrong arguments, no such model, an unreachable registry";

/// Show what was live when, who requested it and why. The audit log is in the tags of the model's versions in
/// the registry, so it is available even if the objects in the cluster are gone.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// The model's name in the registry.
    #[arg(value_name = "MODEL")]
    pub model: ModelName,

    /// Show only this alias, for instance `champion`.
    #[arg(long, value_name = "ALIAS")]
    pub alias: Option<AliasName>,

    /// Show what was live then: a day (2026-11-22, in UTC) or a time with a zone (2026-11-22T14:00:00Z).
    #[arg(long, value_name = "DATE")]
    pub at: Option<Span>,

    /// The output format.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,

    /// The registry to query.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// The output as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryReport<'a> {
    model: &'a ModelName,
    #[serde(flatten)]
    log: &'a Log,
}

/// Reads the audit log and prints it.
///
/// # Errors
/// When the query failed.
pub async fn history(args: &HistoryArgs, out: impl Write) -> Result<ExitStatus, CliError> {
    let client = args.registry.connect()?;
    let log = read(client.as_ref(), args).await?;
    print(args, &log, terminal_width(), out).map_err(CliError::because)?;
    Ok(if log.entries.is_empty() { ExitStatus::Bad } else { ExitStatus::Good })
}

async fn read(registry: &dyn Registry, args: &HistoryArgs) -> Result<Log, CliError> {
    let model = &args.model;
    if registry.model(model).await.map_err(CliError::because)?.is_none() {
        return Err(CliError(format!("the model {:?} does not exist in the registry", model.as_str())));
    }
    let versions = registry.newest_versions(model, VERSIONS_MAX).await.map_err(CliError::because)?;
    let mut log = Log::of(&versions);
    if let Some(alias) = &args.alias {
        log = log.about(alias);
    }
    if let Some(at) = args.at {
        log = log.live_at(at);
    }
    Ok(log)
}

fn print(args: &HistoryArgs, log: &Log, width: usize, mut out: impl Write) -> std::io::Result<()> {
    match args.output {
        Output::Json => {
            let report = HistoryReport { model: &args.model, log };
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)
        }
        Output::Text => text(args, log, width, out),
    }
}

fn text(args: &HistoryArgs, log: &Log, width: usize, mut out: impl Write) -> std::io::Result<()> {
    if log.entries.is_empty() {
        let what = if args.at.is_some() { "nothing was live then" } else { "the audit log has no entries" };
        let about = args.alias.as_ref().map_or_else(String::new, |alias| format!(" for @{}", alias.as_str()));
        writeln!(out, "{}: {what}{about}", args.model.as_str())?;
    } else {
        let header =
            ["ALIAS", "VERSION", "WHAT", "SINCE", "UNTIL", "FROM", "BY", "CAUSE", "TOOK"].map(str::to_owned);
        let header = Row::from(header.to_vec());
        let rows: Vec<Row> = std::iter::once(header).chain(log.entries.iter().map(row)).collect();
        out.write_all(table(&rows, width).as_bytes())?;
    }
    if log.unreadable > 0 {
        writeln!(out, "{} tags (laurel.log.…) cannot be parsed and are left out", log.unreadable)?;
    }
    Ok(())
}

fn row(line: &Line) -> Row {
    let entry = &line.entry;
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let what = match entry.outcome {
        Outcome::Promoted => "promoted",
        Outcome::RolledBack => "rolled back",
        Outcome::Rejected => "rejected",
        Outcome::Unknown => "unknown",
    };
    let until = match line.until {
        Some(until) => second(until),
        None if line.is_live() => "now".to_owned(),
        None => "-".to_owned(),
    };
    let cells = vec![
        entry.alias.to_string(),
        line.version.to_string(),
        what.to_owned(),
        second(entry.at),
        until,
        optional(entry.from.map(|from| from.to_string())),
        entry.who(),
        cause(entry.cause).to_owned(),
        optional(entry.duration.clone()),
    ];
    let detail = match (&entry.reason, &entry.message) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (reason, message) => reason.clone().or_else(|| message.clone()),
    };
    Row { cells, detail }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Spec => "spec.version",
        Cause::Registry => "registry",
        Cause::Follower => "spec.follow",
        Cause::Failure => "failover",
        Cause::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;
    use crate::{
        api::names::Version,
        cli::{Cli, Command},
        registry::{VersionFacts, VersionState},
    };

    /// The log entries of three versions.
    const TAGS: &[(u32, &str)] = &[
        (
            1,
            r#"{"alias":"champion","outcome":"Promoted","at":"2026-11-20T09:00:00.123Z","cause":"Spec","requestedBy":"ana@example.com","commit":"4f1c2d3","duration":"41s","modelAlias":"risk/fraud-champion"}"#,
        ),
        (
            2,
            r#"{"alias":"champion","outcome":"Promoted","at":"2026-11-21T09:00:00Z","from":"1","cause":"Registry","requestedBy":"unknown","duration":"38s","modelAlias":"risk/fraud-champion"}"#,
        ),
        (
            3,
            r#"{"alias":"champion","outcome":"Rejected","at":"2026-11-21T12:00:00Z","from":"2","cause":"Follower","requestedBy":"laurel","reason":"SmokeTestFailed","message":"version 3 failed its own input example: 500","modelAlias":"risk/fraud-champion"}"#,
        ),
        (
            1,
            r#"{"alias":"champion","outcome":"RolledBack","at":"2026-11-22T09:30:00Z","from":"2","cause":"Failure","requestedBy":"laurel","modelAlias":"risk/fraud-champion"}"#,
        ),
        (
            3,
            r#"{"alias":"challenger","outcome":"Promoted","at":"2026-11-22T10:00:00Z","cause":"Spec","requestedBy":"bob","modelAlias":"risk/fraud-challenger"}"#,
        ),
    ];

    fn log() -> Log {
        let mut versions: BTreeMap<u32, VersionFacts> = BTreeMap::new();
        for (index, (number, line)) in TAGS.iter().enumerate() {
            let facts = versions.entry(*number).or_insert_with(|| VersionFacts {
                version: Version::new(*number).unwrap(),
                created_at: Timestamp::UNIX_EPOCH,
                state: VersionState::Ready,
                model_uri: "models:/fraud/1".parse().unwrap(),
                run_id: None,
                description: String::new(),
                tags: BTreeMap::new(),
            });
            facts.tags.insert(format!("laurel.log.{index}"), (*line).to_owned());
        }
        Log::of(&versions.into_values().collect::<Vec<_>>())
    }

    fn args(words: &[&str]) -> HistoryArgs {
        let words = [&["laurel", "history", "fraud"], words].concat();
        match Cli::try_parse_from(words).unwrap().command {
            Command::History(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn printed(words: &[&str], log: Log) -> String {
        let args = args(words);
        let log = args.alias.iter().fold(log, Log::about);
        let log = args.at.into_iter().fold(log, Log::live_at);
        let mut out = Vec::new();
        print(&args, &log, 120, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_log_as_a_table() {
        insta::assert_snapshot!("everything", printed(&[], log()));
        insta::assert_snapshot!("on_a_day", printed(&["--at", "2026-11-22", "--alias", "champion"], log()));
        insta::assert_snapshot!("before_anything", printed(&["--at", "2026-11-19"], log()));
        let unreadable = Log { unreadable: 2, ..Log::default() };
        insta::assert_snapshot!("nothing", printed(&["--alias", "champion"], unreadable));
    }

    #[test]
    fn a_long_message_fits_the_terminal() {
        let mut log = log();
        let rejected = log.entries.iter_mut().find(|line| line.entry.reason.is_some()).unwrap();
        rejected.entry.message = Some("the pods are not ready ".repeat(30));
        let text = printed(&[], log);
        let width = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width <= 120, "{width} columns:\n{text}");
        assert_eq!(text.matches("pods").count(), 30, "nothing is cut off:\n{text}");
    }

    #[test]
    fn the_log_as_json() {
        insta::assert_snapshot!("json", printed(&["-o", "json", "--at", "2026-11-21T12:30:00Z"], log()));
    }

    #[test]
    fn wrong_arguments_are_rejected() {
        for words in [&["--at", "yesterday"] as &[&str], &["--alias", "latest"], &["-o", "yaml"]] {
            assert!(
                Cli::try_parse_from([&["laurel", "history", "fraud"], words].concat()).is_err(),
                "{words:?}"
            );
        }
    }
}
