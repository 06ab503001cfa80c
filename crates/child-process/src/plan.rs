//! From the options of a command to the plan of a child, checked before anything is started.
//!
//! Strings become C strings, the program becomes the list of paths to try, and the environment
//! becomes `NAME=value` strings. A zero byte is an error that names the option; nothing is cut.
//!
//! Pure.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use ipc::internal::check_options;
use sys::spawn::Plan;

use crate::command::Command;
use crate::error::{InvalidOption, lossy};
use crate::stdio::Slot;

/// The search path of a child without `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The length from which a path is not tried, because the kernel refuses it.
const PATH_BYTES_MAX: usize = 4096;

/// The highest descriptor number of a child.
const NUMBER_MAX: i32 = 65_535;

/// The range of user and group numbers: the kernel takes the highest one for "no change".
const ID_RANGE: &str = "must be from 0 to 4294967294";

/// Checks the options that are numbers or slots. [`plan`] checks those that are strings.
pub(crate) fn check(command: &Command) -> Result<(), InvalidOption> {
    let attributes = &command.attributes;
    if command.start_within.is_zero() {
        return Err(InvalidOption::value("start_within", "must be longer than zero"));
    }
    let id_max = i64::from(u32::MAX) - 1;
    if let Some(uid) = attributes.uid {
        check_range("uid", uid.into(), 0, id_max, ID_RANGE)?;
    }
    if let Some(gid) = attributes.gid {
        check_range("gid", gid.into(), 0, id_max, ID_RANGE)?;
    }
    for group in attributes.groups.iter().flatten() {
        check_range("groups", i64::from(*group), 0, id_max, ID_RANGE)?;
    }
    if let Some(nice) = attributes.nice {
        check_range("nice", nice.into(), -20, 19, "must be from -20 to 19")?;
    }
    if let Some(umask) = attributes.umask {
        check_range("umask", umask.into(), 0, 0o777, "must be from 0 to 0o777")?;
    }
    if let Some(group) = attributes.process_group {
        check_range(
            "process_group",
            group.into(),
            0,
            i32::MAX.into(),
            "must be from 0 to 2147483647",
        )?;
        if attributes.session || command.terminal_number().is_some() {
            return Err(InvalidOption::value(
                "process_group",
                "a session leader has its own group",
            ));
        }
    }
    if let Some(number) = command.controlling_terminal {
        let known = command.stdio.iter().any(|(slot, _)| *slot == number);
        if !known {
            let why = "must be a descriptor of the child";
            return Err(InvalidOption::value("controlling_terminal", why));
        }
    }
    if let Some(processors) = &attributes.affinity {
        if processors.is_empty() {
            return Err(InvalidOption::value("affinity", "must name a processor"));
        }
        for processor in processors {
            check_range("affinity", i64::from(*processor), 0, 8191, "must be from 0 to 8191")?;
        }
    }
    if let Err(ipc::Error::InvalidOption(why)) = check_options(&command.channel) {
        return Err(InvalidOption::value("channel_options", why));
    }
    if let Some(sandbox) = &command.sandbox {
        sandbox.check()?;
    }
    check_slots(command)
}

fn check_slots(command: &Command) -> Result<(), InvalidOption> {
    let mut channels = 0;
    for (number, slot) in &command.stdio {
        if *number < 0 || *number > NUMBER_MAX {
            return Err(InvalidOption::range(
                format!("stdio[{number}]"),
                "a descriptor number must be from 0 to 65535",
            ));
        }
        match slot {
            Slot::Channel => channels += 1,
            Slot::Moved => {
                let why = "the descriptor has moved into an earlier child; set another one";
                return Err(InvalidOption::value(format!("stdio[{number}]"), why));
            }
            _ => {}
        }
    }
    if channels > 1 {
        return Err(InvalidOption::coded(
            "stdio",
            "at most one slot can be the channel",
            "ERR_IPC_ONE_PIPE",
        ));
    }
    if channels == 0 && command.is_fork {
        let code = "ERR_CHILD_PROCESS_IPC_REQUIRED";
        return Err(InvalidOption::coded("stdio", "a fork must have a channel", code));
    }
    Ok(())
}

/// Creates the plan of a child, without its descriptors, attributes and control group.
///
/// `inherited` is the environment of this process. The variables of `announcement` replace
/// variables of the same name, for this child only.
pub(crate) fn plan(
    command: &Command,
    inherited: impl Iterator<Item = (OsString, OsString)>,
    announcement: &[(&str, String)],
) -> Result<Plan<'static>, InvalidOption> {
    if command.program.is_empty() {
        return Err(InvalidOption::value("program", "must not be empty"));
    }
    let current_dir = match &command.current_dir {
        // As in Node, an empty path means no change of directory.
        Some(path) if !path.as_os_str().is_empty() => Some(c_string("cwd", path.as_os_str())?),
        _ => None,
    };
    let (program, arguments) = command_line(command)?;
    let environment = environment(command, inherited, announcement)?;
    let mut candidates = candidates(&program, path_of(&environment))?;
    // Tried last: it works when the file of the program is gone.
    if let Some(fallback) = &command.fallback {
        candidates.push(c_string("program", fallback)?);
    }
    let mut plan = Plan::new(candidates, arguments);
    (plan.environment, plan.current_dir) = (environment, current_dir);
    plan.start_within = command.start_within;
    Ok(plan)
}

/// Returns the program to run and its `argv`. With a shell, program and arguments are one command.
fn command_line(command: &Command) -> Result<(OsString, Vec<CString>), InvalidOption> {
    let program = c_string("program", &command.program)?;
    let args = command.args.iter().enumerate();
    let args = args.map(|(index, arg)| c_string(format!("args[{index}]"), arg));
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let argv0 = command.argv0.as_ref().map(|argv0| c_string("argv0", argv0)).transpose()?;
    let Some(shell) = &command.shell else {
        let own_name = argv0.unwrap_or(program);
        let arguments = [own_name].into_iter().chain(args).collect();
        return Ok((command.program.clone(), arguments));
    };
    if shell.is_empty() {
        return Err(InvalidOption::value("shell", "must not be empty"));
    }
    let own_name = argv0.map_or_else(|| c_string("shell", shell), Ok)?;
    // Joined by spaces and not quoted, as in Node.
    let mut line = program.into_bytes();
    for arg in args {
        line.push(b' ');
        line.extend(arg.as_bytes());
    }
    let line = c_string("program", OsStr::from_bytes(&line))?;
    let minus_c = c_string("shell", OsStr::new("-c"))?;
    c_string("shell", shell)?;
    Ok((shell.clone(), vec![own_name, minus_c, line]))
}

fn environment(
    command: &Command,
    inherited: impl Iterator<Item = (OsString, OsString)>,
    announcement: &[(&str, String)],
) -> Result<Vec<CString>, InvalidOption> {
    let is_announced = |name: &OsStr| announcement.iter().any(|(known, _)| name == *known);
    let mut strings = Vec::new();
    if !command.env_clear {
        for (name, value) in inherited {
            if !command.env.contains_key(&name) && !is_announced(&name) {
                strings.push(variable(&name, &value)?);
            }
        }
    }
    for (name, value) in &command.env {
        let bytes = name.as_bytes();
        // In `NAME=value` the first '=' ends the name: such a name would set another variable.
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(InvalidOption::value(
                format!("env {}", lossy(name)),
                "a name must not be empty or contain '='",
            ));
        }
        if let Some(value) = value.as_ref().filter(|_| !is_announced(name)) {
            strings.push(variable(name, value)?);
        }
    }
    for (name, value) in announcement {
        strings.push(variable(OsStr::new(name), OsStr::new(value))?);
    }
    Ok(strings)
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, InvalidOption> {
    let mut text = name.to_owned().into_vec();
    text.push(b'=');
    text.extend(value.as_bytes());
    CString::new(text).map_err(|_| {
        InvalidOption::value(format!("env {}", lossy(name)), "must not contain a zero byte")
    })
}

fn path_of(environment: &[CString]) -> &[u8] {
    let path = environment.iter().rev().find_map(|text| text.as_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH)
}

/// Returns the paths that `execvp(3)` would try: a name with a slash is a path; another name is
/// looked up in each entry of `PATH`, where an empty entry means the working directory.
fn candidates(program: &OsStr, path: &[u8]) -> Result<Vec<CString>, InvalidOption> {
    let name = program.as_bytes();
    if name.contains(&b'/') {
        return Ok(vec![c_string("program", program)?]);
    }
    let mut candidates = Vec::new();
    for directory in path.split(|&byte| byte == b':') {
        if directory.len() + 1 + name.len() >= PATH_BYTES_MAX {
            continue;
        }
        let mut candidate = directory.to_vec();
        if !directory.is_empty() {
            candidate.push(b'/');
        }
        candidate.extend(name);
        candidates.push(c_string("program", OsStr::from_bytes(&candidate))?);
    }
    if candidates.is_empty() {
        // The name is too long for every directory: the kernel reports it.
        candidates.push(c_string("program", program)?);
    }
    Ok(candidates)
}

fn c_string(field: impl Into<String>, text: &OsStr) -> Result<CString, InvalidOption> {
    CString::new(text.as_bytes())
        .map_err(|_| InvalidOption::value(field, "must not contain a zero byte"))
}

/// Checks that a number lies within its bounds, both included, which `why` names.
fn check_range(
    field: &'static str,
    number: i64,
    low: i64,
    high: i64,
    why: &'static str,
) -> Result<(), InvalidOption> {
    if number < low || number > high {
        return Err(InvalidOption::range(field, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn command(program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args);
        command
    }

    fn planned(
        command: &Command,
        inherited: &[(&str, &str)],
    ) -> Result<Plan<'static>, InvalidOption> {
        plan(command, inherited.iter().map(|(name, value)| (name.into(), value.into())), &[])
    }

    fn texts(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|text| text.to_str().unwrap()).collect()
    }

    #[test]
    fn a_name_without_a_slash_is_looked_up_in_the_childs_path() {
        let mut ls = command("ls", &["-l"]);
        let plan = planned(&ls, &[("PATH", "/a::/b/")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/a/ls", "ls", "/b//ls"]);
        assert_eq!(texts(&plan.arguments), ["ls", "-l"]);
        let plan = planned(&ls, &[]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/ls", "/usr/bin/ls"]);
        ls.env.insert("PATH".into(), Some("/c".into()));
        let plan = planned(&ls, &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/c/ls"]);
        ls.env.insert("PATH".into(), None);
        let plan = planned(&ls, &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/ls", "/usr/bin/ls"]);
        let path = planned(&command("./ls", &[]), &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&path.candidates), ["./ls"]);
    }

    #[test]
    fn directories_that_make_a_path_too_long_are_skipped() {
        let long = "/x".repeat(3000);
        let path = format!("{long}:/b");
        let plan = planned(&command("ls", &[]), &[("PATH", &path)]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/b/ls"]);
        let plan = planned(&command("ls", &[]), &[("PATH", &long)]).unwrap();
        assert_eq!(texts(&plan.candidates), ["ls"]);
    }

    #[test]
    fn the_environment_is_inherited_with_changes() {
        let mut env = command("env", &[]);
        env.env.insert("A".into(), Some("new".into()));
        env.env.insert("B".into(), None);
        env.env.insert("EMPTY".into(), Some("".into()));
        env.env.insert("a".into(), Some("other".into()));
        let ours = [("A", "old"), ("B", "gone"), ("C", "stays")];
        let plan = planned(&env, &ours).unwrap();
        assert_eq!(texts(&plan.environment), ["C=stays", "A=new", "EMPTY=", "a=other"]);
        env.env_clear = true;
        let plan = planned(&env, &ours).unwrap();
        assert_eq!(texts(&plan.environment), ["A=new", "EMPTY=", "a=other"]);
    }

    #[test]
    fn a_shell_gets_one_command() {
        let mut echo = command("echo", &["a  b", "| cat"]);
        echo.shell = Some("/bin/sh".into());
        let plan = planned(&echo, &[]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/sh"]);
        assert_eq!(texts(&plan.arguments), ["/bin/sh", "-c", "echo a  b | cat"]);
    }

    #[test]
    fn a_zero_byte_is_refused_and_its_field_named() {
        let zero = || OsString::from("a\0b");
        let check = |change: fn(&mut Command, OsString), field: &str| {
            let mut command = command("x", &["fine"]);
            change(&mut command, zero());
            let refused = planned(&command, &[]).unwrap_err();
            assert_eq!(refused, InvalidOption::value(field, "must not contain a zero byte"));
        };
        check(|c, zero| c.program = zero, "program");
        check(|c, zero| c.args.push(zero), "args[1]");
        check(|c, zero| c.argv0 = Some(zero), "argv0");
        check(|c, zero| c.shell = Some(zero), "shell");
        check(|c, zero| c.current_dir = Some(zero.into()), "cwd");
        check(|c, zero| drop(c.env.insert("K".into(), Some(zero))), "env K");
        check(|c, zero| drop(c.env.insert(zero, Some("v".into()))), "env a\0b");
    }

    #[test]
    fn empty_and_malformed_names_are_refused() {
        assert_eq!(planned(&command("", &[]), &[]).unwrap_err().field, "program");
        for name in ["", "A=B"] {
            let mut bad = command("x", &[]);
            bad.env.insert(name.into(), Some("v".into()));
            assert_eq!(planned(&bad, &[]).unwrap_err().field, format!("env {name}"));
        }
        let mut no_shell = command("x", &[]);
        no_shell.shell = Some("".into());
        assert_eq!(planned(&no_shell, &[]).unwrap_err().field, "shell");
    }

    #[test]
    fn an_empty_directory_is_none_and_argv0_replaces_the_name() {
        let mut x = command("/bin/x", &["1"]);
        x.current_dir = Some(PathBuf::new());
        x.argv0 = Some("other".into());
        let plan = planned(&x, &[]).unwrap();
        assert_eq!(plan.current_dir, None);
        assert_eq!(texts(&plan.arguments), ["other", "1"]);
    }

    #[test]
    fn the_announcement_replaces_variables_of_its_names_for_this_child() {
        let announcement = [("NODE_CHANNEL_FD", "3".to_owned())];
        let ours = [("NODE_CHANNEL_FD", "8"), ("A", "b")].map(|(n, v)| (n.into(), v.into()));
        let mut x = command("/bin/x", &[]);
        x.env.insert("NODE_CHANNEL_FD".into(), Some("7".into()));
        let announced = plan(&x, ours.clone().into_iter(), &announcement).unwrap();
        assert_eq!(texts(&announced.environment), ["A=b", "NODE_CHANNEL_FD=3"]);
        let plain = plan(&x, ours.clone().into_iter(), &[]).unwrap();
        assert_eq!(texts(&plain.environment), ["A=b", "NODE_CHANNEL_FD=7"]);
        x.env_clear();
        let announced = plan(&x, ours.into_iter(), &announcement).unwrap();
        assert_eq!(texts(&announced.environment), ["NODE_CHANNEL_FD=3"]);
    }

    #[test]
    fn a_tag_that_no_peer_takes_is_refused_before_the_start() {
        let mut x = command("/bin/x", &[]);
        x.channel_options(ipc::Options::new().tag("t".repeat(256)));
        assert_eq!(check(&x), Ok(()));
        x.channel_options(ipc::Options::new().tag("t".repeat(257)));
        let why = "the tag is longer than 256 bytes";
        assert_eq!(check(&x), Err(InvalidOption::value("channel_options", why)));
    }

    #[test]
    fn slots_that_no_child_can_have_are_refused() {
        use crate::Stdio;
        let refused = |change: fn(&mut Command)| {
            let mut x = command("/bin/x", &[]);
            change(&mut x);
            check(&x).err().map(|refused| (refused.field.clone(), refused.code()))
        };
        let range = |field: &str| Some((field.to_owned(), "ERR_OUT_OF_RANGE"));
        assert_eq!(refused(|x| _ = x.descriptor(65_535, Stdio::null())), None);
        assert_eq!(refused(|x| _ = x.descriptor(65_536, Stdio::null())), range("stdio[65536]"));
        assert_eq!(refused(|x| _ = x.descriptor(-1, Stdio::null())), range("stdio[-1]"));
        let channels = |count: i32| {
            let mut x = command("/bin/x", &[]);
            (3..3 + count).for_each(|number| _ = x.descriptor(number, Stdio::ipc()));
            x
        };
        assert_eq!(check(&channels(1)), Ok(()));
        assert_eq!(check(&channels(2)).unwrap_err().code(), "ERR_IPC_ONE_PIPE");
        for (count, is_fork, is_refused) in
            [(0, false, false), (0, true, true), (1, true, false), (1, false, false)]
        {
            let mut x = channels(count);
            x.is_fork = is_fork;
            assert_eq!(check(&x).is_err(), is_refused, "{count} channels, {is_fork}");
        }
    }

    #[test]
    fn bounds_are_included() {
        let nice = |number| check_range("nice", number, -20, 19, "must be from -20 to 19");
        assert!(nice(-20).is_ok() && nice(19).is_ok());
        assert_eq!(nice(20), Err(InvalidOption::range("nice", "must be from -20 to 19")));
    }
}
