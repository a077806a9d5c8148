//! `laurel check`: manifests, validated without a cluster.

use std::{fmt::Write as _, io::Write, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{CliError, ExitStatus, Output, RegistryArgs, files};
use crate::offline::check::{Finding, Promotion, Severity, UNKNOWN, check, evaluate};

/// Options of `laurel check`.
///
/// The exit code is 0 without errors (there may be warnings), 1 with errors, and 2 if the check failed: an
/// unreadable file, an unreachable registry.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 no errors (there may be warnings), 1 errors found, 2 the check failed: \
                  an unreadable file, an unreachable registry."
)]
pub struct CheckOptions {
    /// A file of manifests, a directory (with everything below it), or `-` for standard input. May be
    /// repeated.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,

    /// The registry to query.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The results of a check.
struct CheckReport {
    files: usize,
    objects: usize,
    others: usize,
    findings: Vec<Finding>,
    /// `None` without a registry.
    promotions: Option<Vec<Promotion>>,
}

impl CheckOptions {
    /// Checks the manifests and prints the report.
    ///
    /// # Errors
    /// When the check failed.
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
                    failed = Some(CliError(format!("cannot check the promotion rules: {error}")));
                }
            }
        }
        // The findings about manifests are printed even if the registry does not answer.
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
        let has_errors = self.findings.iter().any(|finding| finding.severity == Severity::Error);
        let is_rejected = self.promotions.iter().flatten().any(|promotion| !promotion.verdict.is_good());
        if has_errors || is_rejected { ExitStatus::Bad } else { ExitStatus::Good }
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
        // Writing to a String cannot fail.
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
            let _ = writeln!(text, "Not checked: {UNKNOWN}.");
        }
        let rejected =
            self.promotions.iter().flatten().filter(|promotion| !promotion.verdict.is_good()).count();
        let _ = writeln!(
            text,
            "{} in {}: {}, {}; {} of other kinds skipped",
            counted(self.objects, "object"),
            counted(self.files, "file"),
            counted(self.count(Severity::Error) + rejected, "error"),
            counted(self.count(Severity::Warning), "warning"),
            self.others,
        );
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
