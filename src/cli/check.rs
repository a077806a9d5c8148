//! `laurel check`: manifests, judged without a cluster.

use std::{fmt::Write as _, io::Write, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{CliError, ExitStatus, Output, RegistryArgs, files};
use crate::offline::check::{Finding, Promotion, Severity, UNKNOWN, check, evaluate};

/// What to check, and against what.
///
/// The exit code is 0 when all is good, warnings aside; 1 when something is wrong; 2 when it could not be checked: a file that
/// cannot be read, a registry that does not answer.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all good (there may be warnings), 1 something is wrong, 2 it could not be checked: \
                        a file that cannot be read, a registry that does not answer."
)]
pub struct CheckOptions {
    /// A file of manifests, a folder (with all below it), or `-` for the standard input. Can be given several times.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,

    /// Which registry is asked.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// How the report is printed.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What was found.
struct CheckReport {
    files: usize,
    objects: usize,
    others: usize,
    findings: Vec<Finding>,
    /// `None` where no registry was asked.
    promotions: Option<Vec<Promotion>>,
}

impl CheckOptions {
    /// Checks, and prints the report.
    ///
    /// # Errors
    /// When it could not be checked.
    pub async fn run(&self, mut out: impl Write) -> Result<ExitStatus, CliError> {
        let manifests = files::read(&self.files)?;
        let (findings, known) = check(&manifests);
        let mut report = CheckReport {
            files: manifests.files,
            objects: manifests.ours.len(),
            others: manifests.others,
            findings,
            promotions: None,
        };
        let mut failed = None;
        if self.registry.is_given() {
            let registry = self.registry.connect()?;
            match evaluate(&known, registry.as_ref()).await {
                Ok(promotions) => report.promotions = Some(promotions),
                Err(error) => {
                    failed = Some(CliError(format!("the promotion rules could not be checked: {error}")));
                }
            }
        }
        // What was found without the registry is told also when that does not answer.
        let text = match self.output {
            Output::Text => report.text(),
            Output::Json => report.json().map_err(CliError::because)?,
        };
        out.write_all(text.as_bytes()).map_err(CliError::because)?;
        failed.map_or_else(|| Ok(report.exit_status()), Err)
    }
}

impl CheckReport {
    fn exit_status(&self) -> ExitStatus {
        let is_wrong = self.findings.iter().any(|finding| finding.severity == Severity::Error);
        let is_refused = self.promotions.iter().flatten().any(|promotion| !promotion.verdict.is_good());
        if is_wrong || is_refused { ExitStatus::Bad } else { ExitStatus::Good }
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn json(&self) -> serde_json::Result<String> {
        let report = json!({
            "good": self.exit_status() == ExitStatus::Good,
            "files": self.files,
            "objects": self.objects,
            "otherObjects": self.others,
            "findings": self.findings,
            "promotions": self.promotions,
            "unknown": self.promotions.as_ref().map(|_| UNKNOWN),
        });
        Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
    }

    fn text(&self) -> String {
        // Writing to a text cannot fail.
        let mut text = String::new();
        for Finding { severity, file, object, path, message } in &self.findings {
            let field = if path.is_empty() { String::new() } else { format!("{path}: ") };
            let _ = writeln!(text, "{severity}: {file}: {object}: {field}{message}");
        }
        for promotion in self.promotions.iter().flatten() {
            let Promotion { file, object, verdict, message, rules, .. } = promotion;
            let word = if verdict.is_good() { "rules" } else { "error" };
            let _ = writeln!(text, "{word}: {file}: {object}: {message}");
            for rule in rules {
                let outcome = if rule.passed { "passed" } else { "failed" };
                let _ = writeln!(text, "  {outcome}  {}: {}", rule.required, rule.seen);
            }
        }
        if self.promotions.as_ref().is_some_and(|promotions| !promotions.is_empty()) {
            let _ = writeln!(text, "Not known here: {UNKNOWN}.");
        }
        let refused =
            self.promotions.iter().flatten().filter(|promotion| !promotion.verdict.is_good()).count();
        let _ = writeln!(
            text,
            "{} in {}: {}, {}; {} of other kinds left out",
            counted(self.objects, "object"),
            counted(self.files, "file"),
            counted(self.count(Severity::Error) + refused, "error"),
            counted(self.count(Severity::Warning), "warning"),
            self.others,
        );
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
