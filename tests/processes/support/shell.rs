//! Shell scripts as children, and the events of a child.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use child_process::{Child, Command, Error, Event};

use crate::support::WAIT_MAX;

/// Returns a command that runs a shell script.
pub(crate) fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// Returns the names of all events of a child, to the last.
pub(crate) fn story(child: &Child) -> Vec<String> {
    let events = child.take_events().unwrap();
    let mut names = Vec::new();
    while let Ok(event) = events.recv_timeout(WAIT_MAX) {
        names.push(match event {
            Event::Message(message) => format!("Message({})", message.decode::<String>().unwrap()),
            Event::Error(Error::TimedOut) => "Error(TimedOut)".to_owned(),
            Event::Error(Error::Cancelled(reason)) => format!("Error(Cancelled({reason:?}))"),
            event => format!("{event:?}"),
        });
    }
    names
}

/// A folder that is removed on drop.
pub(crate) struct TestFolder(pub(crate) PathBuf);

impl TestFolder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("brood-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
