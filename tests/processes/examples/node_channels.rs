//! The examples `node_parent` and `node_child` from outside, as a user sees them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{apply, case};
use crate::support::example;
use crate::support::node::{node, script};

/// Runs `node_parent` with this input, which ends after this number of printed lines; the folder of
/// the Node under test comes first in its path.
fn parent(node: &OsString, flags: &[&str], input: &str, answers: usize) -> Output {
    let folder = Path::new(node).parent().unwrap_or(Path::new(""));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(example("node_parent"))
        .arg(script("example_child.cjs"))
        .args(flags)
        .env("PATH", format!("{}:{path}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut stdout = String::new();
    for _ in 0..answers {
        printed.read_line(&mut stdout).unwrap();
    }
    drop(stdin);
    printed.read_to_string(&mut stdout).unwrap();
    let output = child.wait_with_output().unwrap();
    Output { stdout: stdout.into_bytes(), ..output }
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[apply(case)]
fn lines_become_messages_and_messages_lines() {
    let Some(node) = node() else { return };
    for flags in [&[][..], &["--serialization", "json"], &["--serialization", "advanced"]] {
        let values = [json!(null), json!("ß\n"), json!([1, 2.5, true]), json!({"a": {"b": []}})];
        let input: String = values.iter().map(|value| format!("{value}\n")).collect();
        let output = parent(&node, flags, &input, 0);
        assert_eq!(lines(&output), values, "{}", said(&output));
        assert_eq!((said(&output).as_str(), output.status.code()), ("exit 0\n", Some(0)));
    }
}

#[apply(case)]
fn handles_have_a_name_and_connections_an_answer() {
    let Some(node) = node() else { return };
    for serialization in ["json", "advanced"] {
        let input = "\"tcp-socket\"\n\"tcp-server\"\n\"udp\"\n\"unix-socket\"\n\"unix-server\"\n";
        let output = parent(&node, &["--serialization", serialization], input, 7);
        let (answers, seen): (Vec<Value>, Vec<Value>) =
            lines(&output).into_iter().partition(Value::is_string);
        let expected = ["tcp-socket", "tcp-server", "udp", "unix-socket", "unix-server"];
        let mut names: Vec<&str> = Vec::new();
        for line in &seen {
            let name = line["handle"]["$handle"].as_str().unwrap();
            assert_eq!(line["message"], json!({"sent": name}));
            names.push(name);
        }
        names.sort_by_key(|name| expected.iter().position(|known| known == name));
        assert_eq!(names, expected);
        assert_eq!(answers, [json!("hello from rust\n"), json!("hello from rust\n")]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

#[apply(case)]
fn the_last_line_says_how_the_script_ended() {
    let Some(node) = node() else { return };
    let output = parent(&node, &[], "{\"exit\": 7}\n", 0);
    assert_eq!((said(&output).as_str(), output.status.code()), ("exit 7\n", Some(7)));
    let output = parent(&node, &[], "{\"kill\": \"SIGKILL\"}\n", 0);
    assert_eq!((said(&output).as_str(), output.status.code()), ("exit SIGKILL\n", Some(137)));
    let output = parent(&node, &[], "no JSON\n1\n", 0);
    assert_eq!(lines(&output), [json!(1)]);
    assert!(said(&output).starts_with("node_parent: line 1 is no JSON"), "{}", said(&output));
    assert!(said(&output).ends_with("exit 0\n"));
}

#[apply(case)]
fn wrong_usage_is_reported() {
    for flags in [&[][..], &["a.js", "--serialization", "xml"], &["a.js", "b"]] {
        let output = Command::new(example("node_parent")).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("usage:"));
    }
    let output = Command::new(example("node_child")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("forked by a Node program"));
}

#[apply(case)]
fn a_node_program_forks_the_example() {
    let Some(node) = node() else { return };
    for serialization in ["json", "advanced"] {
        let output = Command::new(&node)
            .arg(script("example_parent.cjs"))
            .arg(example("node_child"))
            .arg(serialization)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "");
    }
}
