//! The sandbox of a command.

use crate::command::Command;
use crate::sandbox::Sandbox;

impl Command {
    /// Starts the child in a sandbox. A later call replaces the sandbox of an earlier one.
    ///
    /// The umask and the control group of the sandbox take the place of those of the command, and its
    /// limits are set after those of the command.
    ///
    /// ```
    /// use brood_child_process::{Command, Sandbox};
    ///
    /// // The child cannot change its user by `sudo`, nor debug other processes.
    /// let sandbox = Sandbox::new().no_new_privileges(true).umask(0o077);
    /// let mut command = Command::shell_line("umask; grep NoNewPrivs /proc/self/status");
    /// let output = command.sandbox(sandbox).output()?;
    /// assert_eq!(output.stdout_text(), "0077\nNoNewPrivs:\t1\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sandbox(&mut self, sandbox: Sandbox) -> &mut Self {
        self.sandbox = Some(sandbox);
        self
    }
}
