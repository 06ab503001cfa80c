//! Node as a peer, with scripts that measure themselves.
//!
//! A script reads a request per line, a JSON value, performs it, and answers with one line of JSON,
//! an array of numbers. The figures of Node are therefore measured inside of Node, without the cost
//! of our pipe, and still in turn with the other contenders.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The maximum time of a script for one request.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// An installed Node.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl Node {
    /// Finds Node. The error is the reason why Node is absent.
    pub fn find() -> Result<Self, String> {
        let output = Command::new("node").arg("--version").output();
        let output = output.map_err(|error| format!("node is not installed ({error})"))?;
        if output.status.success() { Ok(Self) } else { Err("node --version fails".to_owned()) }
    }

    /// Starts a script.
    pub fn start(self, script: &str) -> Result<Script, String> {
        Self::run(Command::new("node").args(["-e", script]))
    }

    /// Starts a script from a file.
    pub fn start_file(self, file: &str, variables: &[(&str, &str)]) -> Result<Script, String> {
        Self::run(Command::new("node").arg(file).envs(variables.iter().copied()))
    }

    /// Starts any program that answers requests in this way.
    pub fn run(command: &mut Command) -> Result<Script, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        match (input, output) {
            (Some(input), Some(output)) => {
                Ok(Script { child, input: Some(input), output: BufReader::new(output) })
            }
            _ => Err("no pipes".to_owned()),
        }
    }
}

/// A running script. Dropping the value ends the script.
#[derive(Debug)]
pub struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// Sends one request, and returns the numbers of the answer.
    pub fn ask(&mut self, request: &serde_json::Value) -> Result<Vec<f64>, String> {
        let input = self.input.as_mut().expect("open until drop");
        writeln!(input, "{request}").map_err(|error| error.to_string())?;
        // A script that hangs is absent, so that the benchmark ends.
        let answers = sys::poll::readable(self.output.get_ref().as_fd(), Some(ANSWER_MAX));
        if !answers.map_err(|error| error.to_string())? {
            return Err(format!("no answer within {ANSWER_MAX:?}"));
        }
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("node answered {line:?}: {error}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The end of its input ends the script and lets it clean up. The kill is for a script that
        // hangs.
        drop(self.input.take());
        let ended = sys::pidfd::PidFd::open(self.child.id())
            .and_then(|child| sys::poll::readable(child.as_fd(), Some(Duration::from_secs(5))));
        if !ended.unwrap_or(false) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
