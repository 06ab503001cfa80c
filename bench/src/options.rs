//! The command line.

use std::path::PathBuf;

use crate::topic;

/// The options of a run.
#[derive(Debug)]
pub struct Options {
    /// The names of the topics.
    pub topics: Vec<&'static str>,
    /// Whether to run fewer rounds with smaller sizes. The figures are not for publication.
    pub quick: bool,
    pub json: Option<PathBuf>,
    pub out: Option<PathBuf>,
}

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { topics: Vec::new(), quick: false, json: None, out: None };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut file = || args.next().map(PathBuf::from).ok_or(format!("{arg} needs a path"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = Some(file()?),
                "--out" => options.out = Some(file()?),
                "all" => options.topics.extend(topic::ALL.iter().map(|entry| entry.name)),
                name => match topic::ALL.iter().find(|entry| entry.name == name) {
                    Some(entry) => options.topics.push(entry.name),
                    None => return Err(format!("no topic or option {name:?}")),
                },
            }
        }
        if options.topics.is_empty() {
            options.topics.extend(topic::ALL.iter().map(|entry| entry.name));
        }
        Ok(options)
    }
}

pub fn usage() -> String {
    let names: Vec<_> = topic::ALL.iter().map(|entry| entry.name).collect();
    format!("usage: bench [{}|all] [--quick] [--json FILE] [--out DIR]", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn topics_and_options_come_in_any_order() {
        let options = parse("--quick spawn --json a.json --out .").unwrap();
        assert_eq!((options.topics, options.quick), (vec!["spawn"], true));
        assert_eq!(options.json, Some("a.json".into()));
        assert_eq!(parse("").unwrap().topics.len(), topic::ALL.len());
        assert_eq!(parse("all").unwrap().topics.len(), topic::ALL.len());
    }

    #[test]
    fn an_unknown_argument_is_named() {
        assert_eq!(parse("spwan").unwrap_err(), "no topic or option \"spwan\"");
        assert_eq!(parse("--json").unwrap_err(), "--json needs a path");
    }
}
