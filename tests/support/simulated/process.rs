//! A child process that ends with its parent, even if that is killed.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// Starts a program and reads lines: `TERM` terminates the program and passes on its exit status; the end of
/// the input kills the whole group.
const SHELL: &str = r#"
"$@" &
if read -r line && [ "$line" = TERM ]; then
  kill -TERM $!
  wait $!
  exit $?
fi
kill -KILL 0
"#;

/// A running program in a process group of its own.
pub(crate) struct Process {
    shell: Child,
    /// When its last owner drops it, the shell kills the whole group.
    leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`, which appends to `log`.
    pub(crate) fn start(program: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SHELL, "sh"]).arg(program.get_program());
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

    /// Returns the id of the process group.
    pub(crate) fn group(&self) -> u32 {
        self.shell.id()
    }

    /// Returns the process id of the program, below that of its shell.
    pub(crate) fn program_id(&self) -> Result<u32> {
        let shell = self.shell.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        children.trim().parse().with_context(|| format!("one program below the shell: {children:?}"))
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        drop(self.leash.take());
        self.shell.wait()?;
        Ok(())
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let group = format!("-{}", self.shell.id());
        let sent = Command::new("kill").args([&format!("-{signal}"), "--", &group]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        Ok(())
    }

    /// Terminates it and waits. Returns its exit status. One that does not exit in time is killed, which is
    /// an error.
    pub(crate) async fn terminate(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.leash.as_mut().context("the process has no leash")?.write_all(b"TERM\n")?;
        let began = Instant::now();
        while began.elapsed() < deadline {
            if let Some(status) = self.shell.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(20)).await;
        }
        let group = format!("-{}", self.shell.id());
        Command::new("kill").args(["-KILL", "--", &group]).status()?;
        self.shell.wait()?;
        bail!("the process did not end within {deadline:?} after SIGTERM")
    }
}
