//! The examples as process 1 of a container.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use child_process::{Command, ExitStatus, Signal};

use crate::harness::{apply, case};
use crate::support::node::node;
use crate::support::shell::TestFolder;
use crate::support::{WAIT_MAX, eventually, example};

/// Each request leaves a process whose parent has ended.
const APP: &str = "
const { spawn } = require('child_process');
const server = require('http').createServer((request, response) => {
  spawn('sh', ['-c', '(sleep 0.05) & exit 0'], { stdio: 'ignore' })
    .on('exit', () => response.end('x'));
});
server.listen(0, '127.0.0.1');
";

fn states_of_children(parent: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    // The format is `pid (name) state parent …`; the name may contain brackets.
    let fields = stats.filter_map(|stat| {
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned);
        Some((fields.next()?, fields.next()?))
    });
    fields.filter(|(_, of)| *of == parent.to_string()).map(|(state, _)| state).collect()
}

#[apply(case)]
fn a_primary_of_node_workers_leaves_no_zombies_as_process_1() {
    let Some(_) = node() else { return };
    let folder = TestFolder::new("process-1");
    let app = folder.file("app.cjs", APP, 0o600);
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new("unshare").args(namespace).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return println!("skipped: no pid namespace can be made");
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(example("node_cluster")).arg(&app).args(["--workers", "2"]);
    let mut unshare = command.spawn().unwrap();
    let mut output = BufReader::new(unshare.take_stdout().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    let own = unshare.pid();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
    let init: u32 = children.trim().parse().unwrap();
    for _ in 0..5 {
        let mut client = TcpStream::connect(&address).unwrap();
        client.set_read_timeout(Some(WAIT_MAX)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // The program is the only child that stays.
    eventually("all orphans are reaped", || {
        let states = states_of_children(init);
        (states.len() == 1 && states[0] != "Z").then_some(())
    });
    sys::signal::kill(init, Signal::TERM).unwrap();
    assert_eq!(unshare.wait().unwrap(), ExitStatus::Code(0), "the drain is orderly");
}
