//! The options of a command that concern the terminal of the child.

use crate::command::Command;
use crate::stdio::Slot;
use crate::terminal::TerminalSize;

impl Command {
    /// Makes the terminal at descriptor `number` of the child its controlling terminal. The child
    /// leads a new session, as with [`detached`](Self::detached), and its group is in the foreground:
    /// it gets Ctrl-C, it can open `/dev/tty`, and a shell has job control.
    ///
    /// For a terminal that the caller has opened and given to [`stdin`](Self::stdin) or another
    /// descriptor. [`Stdio::pty`](crate::Stdio::pty) needs no such call. A terminal that already is the controlling
    /// terminal of another session is refused: `EPERM` with
    /// [`Step::Terminal`](crate::Step::Terminal).
    #[doc(alias = "TIOCSCTTY")]
    #[doc(alias = "login_tty")]
    pub fn controlling_terminal(&mut self, number: i32) -> &mut Self {
        self.controlling_terminal = Some(number);
        self
    }

    /// Sets the size with which a terminal of [`Stdio::pty`](crate::Stdio::pty) begins. The default is 24 rows of 80
    /// columns.
    pub fn terminal_size(&mut self, size: TerminalSize) -> &mut Self {
        self.terminal_size = size;
        self
    }

    /// Returns the number of the descriptor that is the child's controlling terminal.
    pub(crate) fn terminal_number(&self) -> Option<i32> {
        let slots = self.stdio.iter();
        let own = slots.filter(|(_, slot)| matches!(slot, Slot::Terminal));
        self.controlling_terminal.or(own.map(|(number, _)| *number).min())
    }
}
