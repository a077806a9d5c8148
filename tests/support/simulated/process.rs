//! A child process that ends with the one that started it, however that ends.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};

/// A running program in a process group of its own.
pub(crate) struct Process {
    shell: Child,
    /// When its last holder lets go of it, the shell kills the whole group.
    leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`, which writes to the end of `log`.
    pub(crate) fn start(program: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", r#""$@" & cat; kill -KILL 0"#, "sh"]).arg(program.get_program());
        shell.args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut shell = shell.spawn().context("sh cannot be run")?;
        let leash = shell.stdin.take();
        Ok(Self { shell, leash })
    }

    /// Ends it without a word, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        drop(self.leash.take());
        self.shell.wait()?;
        Ok(())
    }
}
