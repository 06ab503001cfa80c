//! The edges between the rooms of a crate: its folders, and the files beside them.
//!
//! `scheduler.rs` and `scheduler/` are one room. A room may name another one only where the table
//! says so, and no two rooms of a crate name each other, directly or around a corner.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, assert_none, sources};

/// The rooms of `cluster`, each with the rooms that it may name. Tests may name every room.
const CLUSTER: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("worker_state", &[]),
    ("counters", &[]),
    ("worker_id", &[]),
    ("worker_options", &[]),
    ("protocol", &[]),
    ("listen_rules", &["protocol"]),
    (
        "contract",
        &["counters", "listen_rules", "policy", "protocol", "worker_id", "worker_options"],
    ),
    ("error", &["protocol", "worker_id", "worker_state"]),
    ("bind", &["listen_rules", "protocol"]),
    ("scheduler", &["contract", "counters", "policy", "protocol"]),
    (
        "supervisor",
        &[
            "contract",
            "counters",
            "listen_rules",
            "policy",
            "protocol",
            "scheduler",
            "worker_options",
        ],
    ),
    ("node", &["contract", "protocol"]),
    ("worker", &["bind", "error", "node", "protocol", "worker_id", "worker_state"]),
    (
        "primary",
        &[
            "bind",
            "contract",
            "counters",
            "error",
            // A function of lib.rs, which refuses a primary in a worker.
            "is_worker",
            "listen_rules",
            "node",
            "policy",
            "protocol",
            "supervisor",
            "worker_options",
            "worker_state",
        ],
    ),
    ("adapter", &["error", "protocol", "worker"]),
];

/// The edges: a room, a room that it names, and the line that names it.
type Edges = BTreeMap<(String, String), String>;

fn edges_of(krate: &str, sources: &[Source]) -> Edges {
    let folder = format!("crates/{krate}/src/");
    let mut edges = Edges::new();
    for source in sources {
        let Some(path) = source.path.strip_prefix(&folder) else { continue };
        let room = path.split(['/', '.']).next().unwrap_or_default();
        if room == "lib" || source.tests_at == 0 {
            continue;
        }
        for (number, line) in source.program() {
            for named in named_in(line) {
                if named != room {
                    let place = format!("{}:{number}", source.path);
                    edges.entry((room.to_owned(), named.to_owned())).or_insert(place);
                }
            }
        }
    }
    edges
}

/// Returns the first names behind each `crate::` of a line: `use crate::{a::B, c}` has two.
fn named_in(line: &str) -> Vec<&str> {
    let first = |path: &'_ str| path.find(|c: char| !c.is_alphanumeric() && c != '_');
    let mut names = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        let rest = &line[at + found.len()..];
        let paths = rest.strip_prefix('{').unwrap_or(rest).split([',', '}']);
        let several = if rest.starts_with('{') { usize::MAX } else { 1 };
        let paths = paths.take(several).map(str::trim);
        let starts = paths.map(|path| &path[..first(path).unwrap_or(path.len())]);
        names.extend(starts.filter(|name| !name.is_empty()));
    }
    names
}

#[test]
fn rooms_of_the_cluster_name_only_what_the_table_allows() {
    let edges = edges_of("cluster", &sources());
    let mut broken = Vec::new();
    for ((from, to), place) in &edges {
        let row = CLUSTER.iter().find(|row| row.0 == from);
        if !row.is_some_and(|row| row.1.contains(&to.as_str())) {
            broken.push(format!("{place}: {from} -> {to}"));
        }
    }
    assert_none(&broken, "edges that are not in the table of rooms");
    let idle = CLUSTER.iter().flat_map(|row| row.1.iter().map(|to| (row.0, *to)));
    let idle =
        idle.filter(|(from, to)| !edges.contains_key(&((*from).to_owned(), (*to).to_owned())));
    let idle: Vec<String> = idle.map(|(from, to)| format!("{from} -> {to}")).collect();
    assert_none(&idle, "edges of the table that no file has any more");
}

#[test]
fn no_circle_of_imports_leaves_a_room() {
    let sources = sources();
    let mut broken = Vec::new();
    for krate in ["sys", "reactor", "os-info", "ipc", "child-process", "cluster"] {
        let edges = edges_of(krate, &sources);
        let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, to) in edges.keys() {
            reached.entry(from).or_default().insert(to);
        }
        // A path visits each room at most once, so as many rounds as there are rooms find all paths.
        for _ in 0..reached.len() {
            let before = reached.clone();
            for next in reached.values_mut() {
                let further: Vec<&str> =
                    next.iter().filter_map(|room| before.get(room)).flatten().copied().collect();
                next.extend(further);
            }
        }
        for (from, to) in edges.keys() {
            if reached.get(to.as_str()).is_some_and(|back| back.contains(from.as_str())) {
                broken.push(format!(
                    "{krate}: {from} -> {to} ({})",
                    edges[&(from.clone(), to.clone())]
                ));
            }
        }
    }
    assert_none(&broken, "imports that are part of a circle");
}

#[test]
fn every_name_behind_crate_is_seen() {
    assert_eq!(named_in("use crate::a::B; x(crate::c)"), ["a", "c"]);
    assert_eq!(named_in("use crate::{a::B, c};"), ["a", "c"]);
    assert!(named_in("use std::fmt;").is_empty());
}
