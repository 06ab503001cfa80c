//! The example `os_info` from outside, and its JSON compared with that of a real Node.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{apply, case};
use crate::support;

fn example() -> Command {
    Command::new(support::example("os_info"))
}

/// Runs a command to its end; returns code, standard output and standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn json_of(command: &mut Command) -> Value {
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// Prints Node's `os`: every function called without arguments, every constant.
const NODE: &str = "
    const os = require('os'), all = {};
    for (const [name, value] of Object.entries(os)) {
        if (name !== 'setPriority') all[name] = typeof value === 'function' ? value() : value;
    }
    all.devNull = os.devNull; all.EOL = os.EOL; all.constants = os.constants;
    console.log(JSON.stringify(all));";

/// Returns Node's answer; prints a line and returns `None` where Node is absent and not required.
fn node() -> Option<Value> {
    let mut node = Command::new("node");
    if Command::new("node").arg("--version").output().is_err() {
        assert!(std::env::var_os("REQUIRE_NODE").is_none(), "REQUIRE_NODE is set: no node");
        println!("SKIPPED: there is no node to compare with");
        return None;
    }
    Some(json_of(node.args(["-e", NODE])))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[apply(case)]
fn every_stable_field_is_what_node_says() {
    let Some(node) = node() else { return };
    let ours = json_of(example().arg("--json"));
    for key in [
        "arch",
        "endianness",
        "getPriority",
        "homedir",
        "hostname",
        "machine",
        "platform",
        "release",
        "tmpdir",
        "totalmem",
        "type",
        "version",
        "EOL",
        "devNull",
        "userInfo",
        "networkInterfaces",
        "constants",
    ] {
        assert_eq!(ours[key], node[key], "{key}");
    }
    // Node 20 ignores the quota.
    if ours["limits"]["cpu_quota"].is_null() {
        assert_eq!(ours["availableParallelism"], node["availableParallelism"]);
    }
}

#[apply(case)]
fn every_key_of_node_is_there_with_its_shape() {
    let Some(node) = node() else { return };
    let ours = json_of(example().arg("--json"));
    let beyond = BTreeSet::from(["limits", "pressure"]);
    let (mine, its) = (keys(&ours), keys(&node));
    assert_eq!(mine.difference(&its).copied().collect::<BTreeSet<_>>(), beyond);
    assert_eq!(its.difference(&mine).count(), 0, "{its:?}");
    for key in its {
        let kind = |value: &Value| std::mem::discriminant(value);
        assert_eq!(kind(&ours[key]), kind(&node[key]), "{key}");
    }
    for (mine, its) in [
        (&ours["cpus"][0], &node["cpus"][0]),
        (&ours["cpus"][0]["times"], &node["cpus"][0]["times"]),
    ] {
        assert_eq!(keys(mine), keys(its));
    }
}

#[apply(case)]
fn changing_values_are_near_those_of_node() {
    let Some(node) = node() else { return };
    let ours = json_of(example().arg("--json"));
    let near = |what: &str, mine: &Value, its: &Value, far: f64| {
        let (mine, its) = (mine.as_f64().unwrap(), its.as_f64().unwrap());
        assert!((mine - its).abs() <= far, "{what}: {mine} and {its}");
    };
    near("uptime", &ours["uptime"], &node["uptime"], 20.0);
    near("freemem", &ours["freemem"], &node["freemem"], node["totalmem"].as_f64().unwrap() / 4.0);
    for place in 0..3 {
        near("loadavg", &ours["loadavg"][place], &node["loadavg"][place], 8.0);
    }
    let (mine, its) = (ours["cpus"].as_array().unwrap(), node["cpus"].as_array().unwrap());
    assert_eq!(mine.len(), its.len());
    for (mine, its) in mine.iter().zip(its) {
        assert_eq!(mine["model"], its["model"]);
        for name in ["user", "nice", "sys", "idle", "irq"] {
            near(name, &mine["times"][name], &its["times"][name], 20_000.0);
        }
        // The example may know the speed where Node does not.
        assert!(its["speed"] == 0 || mine["speed"].as_u64() > Some(0));
    }
}

#[apply(case)]
fn the_table_shows_host_and_container_and_a_bar_per_core() {
    let (code, stdout, stderr) = run(&mut example());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for part in ["memory\n", "allowed to this process\n", "CPU quota", "network\n", "core 0 "] {
        assert!(stdout.contains(part), "no {part:?} in\n{stdout}");
    }
    let cores = stdout.lines().filter(|line| line.trim_start().starts_with("core ")).count();
    assert_eq!(cores, os_info::cpus().unwrap().len());
    let bars = stdout.lines().filter(|line| line.contains(['█', '░']));
    for line in bars {
        assert_eq!(line.chars().filter(|c| "█░".contains(*c)).count(), 32, "{line}");
    }
    assert!(stdout.lines().all(|line| line.trim_end() == line));
}

#[apply(case)]
fn an_unknown_flag_is_refused_with_the_usage() {
    for flag in [OsString::from("--jsn"), OsString::from("x"), OsString::from_vec(vec![0xff])] {
        let (code, stdout, stderr) = run(example().arg(&flag));
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains("unknown argument") && stderr.contains("usage: os_info"));
    }
    let (code, stdout, _) = run(example().arg("--help"));
    assert!(code == Some(0) && stdout.starts_with("usage: os_info"));
}

#[apply(case)]
fn an_output_that_takes_nothing_is_no_panic() {
    let program = format!("'{}'", support::example("os_info").display());
    for (script, code, said) in [
        ("EXAMPLE --help >/dev/full", 1, "os_info: No space left on device (os error 28)\n"),
        ("EXAMPLE --json >/dev/full", 1, "os_info: No space left on device (os error 28)\n"),
        ("EXAMPLE --bad 2>/dev/full", 2, ""),
    ] {
        let script = script.replace("EXAMPLE", &program);
        let (found, stdout, stderr) = run(Command::new("sh").args(["-c", &script]));
        assert_eq!((found, stdout.as_str(), stderr.as_str()), (Some(code), "", said), "{script}");
    }
    for flag in ["--help", "--json"] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let (code, _, stderr) = run(example().arg(flag).stdout(OwnedFd::from(writer)));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{flag}");
    }
}

#[apply(case)]
fn an_empty_home_is_reported_and_a_home_that_is_not_utf8_is_used() {
    let (_, stdout, _) = run(example().env("HOME", ""));
    assert!(stdout.contains("HOME is set, but empty"), "{stdout}");
    assert!(json_of(example().arg("--json").env("HOME", ""))["homedir"].is_null());
    let odd = OsString::from_vec(b"/h\xff".to_vec());
    assert_eq!(json_of(example().arg("--json").env("HOME", odd))["homedir"], "/h\u{fffd}");
}

#[apply(case)]
fn a_user_without_an_entry_has_numbers_and_no_names() {
    const NOBODY_AT_ALL: u32 = 4_000_000_007;
    let mut command = example();
    command.arg("--json").env_remove("HOME").uid(NOBODY_AT_ALL);
    match command.output() {
        Ok(output) if output.status.success() => {
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(json["userInfo"]["uid"], NOBODY_AT_ALL);
            assert!(json["userInfo"]["username"].is_null() && json["homedir"].is_null());
        }
        // The process is not root, or only root may enter the folder of the program.
        other => println!("SKIPPED: another user cannot run the example here: {other:?}"),
    }
}

/// Runs `script` as root of namespaces of its own; prints a line and returns `None` where that is
/// forbidden.
fn unshared(flags: &[&str], script: &str) -> Option<(Option<i32>, String, String)> {
    let allowed = Command::new("unshare").args(flags).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: unshare {flags:?} is not allowed here");
        return None;
    }
    let mut command = Command::new("unshare");
    let program = support::example("os_info");
    Some(run(command
        .args(flags)
        .args([OsStr::new("sh"), "-c".as_ref(), script.as_ref()])
        .arg(program)))
}

#[apply(case)]
fn a_host_name_that_is_not_utf8_is_a_clear_error() {
    let script = "printf 'h\\377st' > /proc/sys/kernel/hostname && exec \"$0\" --json";
    let Some((code, stdout, stderr)) = unshared(&["--uts"], script) else { return };
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, "os_info: uname gave a text that is not UTF-8: h\\xffst\n");
}

#[apply(case)]
fn a_system_without_proc_is_a_clear_error() {
    let script = "mount -t tmpfs none /proc && exec \"$0\" --json";
    let Some((code, stdout, stderr)) = unshared(&["--mount"], script) else { return };
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.starts_with("os_info: /proc/stat failed: No such file"), "{stderr}");
}

#[apply(case)]
fn a_limit_file_that_is_a_pipe_blocks_nothing() {
    let script = "
        mount -t tmpfs none /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/memory && cd /sys/fs/cgroup &&
        mkfifo cgroup.procs memory.max memory/memory.limit_in_bytes memory/cgroup.procs cpu.max &&
        exec timeout 20 \"$0\" --json";
    let Some((code, stdout, stderr)) = unshared(&["--mount"], script) else { return };
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert!(json["limits"]["memory"]["max_bytes"].is_null(), "{json}");
    assert!(json["limits"]["cpu_quota"].is_null(), "{json}");
}

#[apply(case)]
fn a_cgroup_namespace_without_mounts_of_its_own_has_no_values_of_the_host() {
    let Some(group) = RealGroup::make("memory", &[]) else { return };
    let script = "echo $$ > \"$1/inner/cgroup.procs\" && exec unshare --cgroup \"$0\" --json";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(support::example("os_info")).arg(&group.0);
    if unshared(&["--cgroup"], "true").is_none() {
        return;
    }
    let memory = &json_of(&mut shell)["limits"]["memory"];
    assert!(memory["current_bytes"].is_null(), "{memory}");
    // With a mount of its own the namespace has its own value.
    let version = if is_v1("memory") { "cgroup -o memory" } else { "cgroup2" };
    let mounted = format!(
        "echo $$ > \"$1/inner/cgroup.procs\" && exec unshare --cgroup --mount sh -c \
         'umount \"$1\" && mount -t {version} none \"$1\" && exec \"$0\" --json' \"$0\" \"$2\""
    );
    let place = if is_v1("memory") { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
    let mut shell = Command::new("sh");
    shell.args(["-c", &mounted]).arg(support::example("os_info")).arg(&group.0).arg(place);
    let memory = &json_of(&mut shell)["limits"]["memory"];
    assert!(memory["current_bytes"].as_u64() < Some(1 << 30), "{memory}");
    assert!(memory["current_bytes"].as_u64() > Some(0), "{memory}");
}

/// A control group made for a test; removed when dropped.
struct RealGroup(PathBuf);

impl RealGroup {
    /// Makes a group below the mount of `controller`, with `limits` as file and value; prints a line and
    /// returns `None` where that is not allowed.
    fn make(controller: &str, limits: &[(&str, &str)]) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let base = if v1.is_dir() { v1 } else { "/sys/fs/cgroup".into() };
        let group = Self(base.join(format!("brood-test-{controller}-{}", std::process::id())));
        let made = fs::create_dir(&group.0).and_then(|()| {
            // The process enters the inner group: the limit of a parent holds, too.
            fs::create_dir(group.0.join("inner"))?;
            limits.iter().try_for_each(|(file, value)| fs::write(group.0.join(file), value))
        });
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                println!("SKIPPED: no real group for {controller} here: {error}");
                None
            }
        }
    }

    /// Returns the JSON of the example inside the group.
    fn json(&self) -> Value {
        let script = "echo $$ > \"$1/inner/cgroup.procs\" && exec \"$0\" --json";
        let mut shell = Command::new("sh");
        json_of(shell.args(["-c", script]).arg(support::example("os_info")).arg(&self.0))
    }
}

impl Drop for RealGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("inner"));
        let _ = fs::remove_dir(&self.0);
    }
}

fn is_v1(controller: &str) -> bool {
    Path::new("/sys/fs/cgroup").join(controller).is_dir()
}

#[apply(case)]
fn the_quota_of_a_real_group_is_seen_from_the_group_below() {
    let limits: &[_] = if is_v1("cpu") {
        &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "60000")]
    } else {
        &[("cpu.max", "60000 100000")]
    };
    let Some(group) = RealGroup::make("cpu", limits) else { return };
    let json = group.json();
    assert_eq!(json["limits"]["cpu_quota"]["quota_us"], 60_000);
    assert_eq!(json["availableParallelism"], 1);
}

#[apply(case)]
fn the_memory_limit_of_a_real_group_is_seen_from_the_group_below() {
    let file = if is_v1("memory") { "memory.limit_in_bytes" } else { "memory.max" };
    let Some(group) = RealGroup::make("memory", &[(file, "268435456")]) else { return };
    let memory = &group.json()["limits"]["memory"];
    assert_eq!(memory["max_bytes"], 268_435_456);
    let used = memory["current_bytes"].as_u64().unwrap();
    assert!(used > 0 && used <= 268_435_456, "{used}");
}

#[apply(case)]
fn the_process_limit_of_a_real_group_is_seen_from_the_group_below() {
    let Some(group) = RealGroup::make("pids", &[("pids.max", "50")]) else { return };
    let limits = &group.json()["limits"];
    assert_eq!(limits["pids_max"], 50);
    assert!(limits["pids_current"].as_u64() >= Some(1));
}
