//! From what the caller asks to what the kernel takes: checked once, before anything is started.
//!
//! Strings become C strings (a zero byte is an error that names its field, nothing is ever cut),
//! the program becomes the list of paths to try, the environment becomes `NAME=value` strings.
//!
//! Pure.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::error::{Invalid, shown};

/// Where programs are looked for when the child has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Paths as long as this are not tried: the kernel takes none.
const PATH_BYTES_MAX: usize = 4096;

/// The highest descriptor number of a child.
pub(crate) const NUMBER_MAX: i32 = 65_535;

/// The strings of a command, as the caller gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) program: OsString,
    /// Tried after the program's own path, for a program that is known by more than one.
    pub(crate) fallback: Option<OsString>,
    pub(crate) argv0: Option<OsString>,
    pub(crate) args: Vec<OsString>,
    pub(crate) shell: Option<OsString>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) env: Environment,
}

/// How the child's environment differs from ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Starts from nothing.
    pub(crate) clear: bool,
    /// `None` removes.
    pub(crate) changes: BTreeMap<OsString, Option<OsString>>,
}

/// The strings of a command, as the kernel takes them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blueprint {
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) current_dir: Option<CString>,
}

/// Draws the blueprint. `inherited` is our own environment.
pub(crate) fn blueprint(
    recipe: &Recipe,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Blueprint, Invalid> {
    if recipe.program.is_empty() {
        return Err(Invalid::value("program", "must not be empty"));
    }
    let current_dir = match &recipe.current_dir {
        // Node: an empty path is none.
        Some(path) if !path.as_os_str().is_empty() => Some(c_string("cwd", path.as_os_str())?),
        _ => None,
    };
    let (program, arguments) = command_line(recipe)?;
    let environment = environment(&recipe.env, inherited)?;
    let mut candidates = candidates(&program, path_of(&environment))?;
    if let Some(fallback) = &recipe.fallback {
        candidates.push(c_string("program", fallback)?);
    }
    Ok(Blueprint { candidates, arguments, environment, current_dir })
}

/// The program to run and its `argv`. With a shell, program and arguments become one command.
fn command_line(recipe: &Recipe) -> Result<(OsString, Vec<CString>), Invalid> {
    let program = c_string("program", &recipe.program)?;
    let args = recipe.args.iter().enumerate();
    let args = args.map(|(index, arg)| c_string(format!("args[{index}]"), arg));
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let argv0 = recipe.argv0.as_ref().map(|argv0| c_string("argv0", argv0)).transpose()?;
    let Some(shell) = &recipe.shell else {
        let own_name = argv0.unwrap_or(program);
        let arguments = [own_name].into_iter().chain(args).collect();
        return Ok((recipe.program.clone(), arguments));
    };
    if shell.is_empty() {
        return Err(Invalid::value("shell", "must not be empty"));
    }
    let own_name = argv0.map_or_else(|| c_string("shell", shell), Ok)?;
    let mut command = program.into_bytes();
    for arg in args {
        command.push(b' ');
        command.extend(arg.as_bytes());
    }
    let command = c_string("program", OsStr::from_bytes(&command))?;
    let minus_c = c_string("shell", OsStr::new("-c"))?;
    c_string("shell", shell)?;
    Ok((shell.clone(), vec![own_name, minus_c, command]))
}

fn environment(
    wanted: &Environment,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<CString>, Invalid> {
    let mut strings = Vec::new();
    if !wanted.clear {
        for (name, value) in inherited {
            if !wanted.changes.contains_key(&name) {
                strings.push(variable(&name, &value)?);
            }
        }
    }
    for (name, value) in &wanted.changes {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(Invalid::value(
                format!("env {}", shown(name)),
                "a name must not be empty or contain '='",
            ));
        }
        if let Some(value) = value {
            strings.push(variable(name, value)?);
        }
    }
    Ok(strings)
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, Invalid> {
    let mut text = name.to_owned().into_vec();
    text.push(b'=');
    text.extend(value.as_bytes());
    CString::new(text)
        .map_err(|_| Invalid::value(format!("env {}", shown(name)), "must not contain a zero byte"))
}

fn path_of(environment: &[CString]) -> &[u8] {
    let path = environment.iter().rev().find_map(|text| text.as_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH)
}

/// What `execvp` would try: a name with a slash is a path; another is looked for in each entry of
/// `PATH`, where an empty entry is the working directory.
fn candidates(program: &OsStr, path: &[u8]) -> Result<Vec<CString>, Invalid> {
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
        // Too long for every directory: let the kernel say so.
        candidates.push(c_string("program", program)?);
    }
    Ok(candidates)
}

fn c_string(field: impl Into<String>, text: &OsStr) -> Result<CString, Invalid> {
    CString::new(text.as_bytes()).map_err(|_| Invalid::value(field, "must not contain a zero byte"))
}

/// Checks a number that has bounds, both included.
pub(crate) fn within(field: &'static str, number: i64, low: i64, high: i64) -> Result<(), Invalid> {
    if number < low || number > high {
        return Err(Invalid::range(field, "is out of range"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(program: &str, args: &[&str]) -> Recipe {
        let args = args.iter().map(OsString::from).collect();
        Recipe { program: program.into(), args, ..Recipe::default() }
    }

    fn drawn(recipe: &Recipe, inherited: &[(&str, &str)]) -> Result<Blueprint, Invalid> {
        blueprint(recipe, inherited.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn texts(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|text| text.to_str().unwrap()).collect()
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_childs_path() {
        let mut ls = recipe("ls", &["-l"]);
        let plan = drawn(&ls, &[("PATH", "/a::/b/")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/a/ls", "ls", "/b//ls"]);
        assert_eq!(texts(&plan.arguments), ["ls", "-l"]);
        let plan = drawn(&ls, &[]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/ls", "/usr/bin/ls"]);
        ls.env.changes.insert("PATH".into(), Some("/c".into()));
        let plan = drawn(&ls, &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/c/ls"]);
        ls.env.changes.insert("PATH".into(), None);
        let plan = drawn(&ls, &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/ls", "/usr/bin/ls"]);
        let path = drawn(&recipe("./ls", &[]), &[("PATH", "/a")]).unwrap();
        assert_eq!(texts(&path.candidates), ["./ls"]);
    }

    #[test]
    fn directories_that_make_too_long_a_path_are_left_out() {
        let long = "/x".repeat(3000);
        let path = format!("{long}:/b");
        let plan = drawn(&recipe("ls", &[]), &[("PATH", &path)]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/b/ls"]);
        let plan = drawn(&recipe("ls", &[]), &[("PATH", &long)]).unwrap();
        assert_eq!(texts(&plan.candidates), ["ls"]);
    }

    #[test]
    fn the_environment_is_ours_with_changes() {
        let mut env = recipe("env", &[]);
        env.env.changes.insert("A".into(), Some("new".into()));
        env.env.changes.insert("B".into(), None);
        env.env.changes.insert("EMPTY".into(), Some("".into()));
        env.env.changes.insert("a".into(), Some("other".into()));
        let ours = [("A", "old"), ("B", "gone"), ("C", "stays")];
        let plan = drawn(&env, &ours).unwrap();
        assert_eq!(texts(&plan.environment), ["C=stays", "A=new", "EMPTY=", "a=other"]);
        env.env.clear = true;
        let plan = drawn(&env, &ours).unwrap();
        assert_eq!(texts(&plan.environment), ["A=new", "EMPTY=", "a=other"]);
    }

    #[test]
    fn a_shell_gets_one_command() {
        let mut echo = recipe("echo", &["a  b", "| cat"]);
        echo.shell = Some("/bin/sh".into());
        let plan = drawn(&echo, &[]).unwrap();
        assert_eq!(texts(&plan.candidates), ["/bin/sh"]);
        assert_eq!(texts(&plan.arguments), ["/bin/sh", "-c", "echo a  b | cat"]);
    }

    #[test]
    fn a_zero_byte_is_refused_and_its_field_named() {
        let zero = || OsString::from("a\0b");
        let check = |change: fn(&mut Recipe, OsString), field: &str| {
            let mut recipe = recipe("x", &["fine"]);
            change(&mut recipe, zero());
            let refused = drawn(&recipe, &[]).unwrap_err();
            assert_eq!(refused, Invalid::value(field, "must not contain a zero byte"));
        };
        check(|r, zero| r.program = zero, "program");
        check(|r, zero| r.args.push(zero), "args[1]");
        check(|r, zero| r.argv0 = Some(zero), "argv0");
        check(|r, zero| r.shell = Some(zero), "shell");
        check(|r, zero| r.current_dir = Some(zero.into()), "cwd");
        check(|r, zero| drop(r.env.changes.insert("K".into(), Some(zero))), "env K");
        check(|r, zero| drop(r.env.changes.insert(zero, Some("v".into()))), "env a\0b");
    }

    #[test]
    fn empty_and_impossible_names_are_refused() {
        assert_eq!(drawn(&recipe("", &[]), &[]).unwrap_err().field, "program");
        for name in ["", "A=B"] {
            let mut bad = recipe("x", &[]);
            bad.env.changes.insert(name.into(), Some("v".into()));
            assert_eq!(drawn(&bad, &[]).unwrap_err().field, format!("env {name}"));
        }
        let mut no_shell = recipe("x", &[]);
        no_shell.shell = Some("".into());
        assert_eq!(drawn(&no_shell, &[]).unwrap_err().field, "shell");
    }

    #[test]
    fn an_empty_directory_is_none_and_argv0_replaces_the_name() {
        let mut x = recipe("/bin/x", &["1"]);
        x.current_dir = Some(PathBuf::new());
        x.argv0 = Some("other".into());
        let plan = drawn(&x, &[]).unwrap();
        assert_eq!(plan.current_dir, None);
        assert_eq!(texts(&plan.arguments), ["other", "1"]);
    }

    #[test]
    fn bounds_are_included() {
        assert!(within("nice", -20, -20, 19).is_ok() && within("nice", 19, -20, 19).is_ok());
        assert_eq!(within("nice", 20, -20, 19), Err(Invalid::range("nice", "is out of range")));
    }
}
