//! The inspector's port of a Node worker, counted up from worker to worker as Node does.
//!
//! Node's primary gives worker `n` the port of the primary plus `n`. Here the port of the primary
//! is the one that the options of the worker name: a Rust primary has no inspector.
//!
//! Pure.

/// The port of the inspector when the options name none.
const PORT_DEFAULT: u16 = 9229;
/// The lowest port after the highest one.
const PORT_MIN: u32 = 1024;

/// Returns the option that selects the inspector's port of the worker `number`; `None` when its
/// program has no inspector, and when it takes any free port.
///
/// `exec_argv` are the options of the command line, and `node_options` is the value of
/// `NODE_OPTIONS`, which Node reads first. `fixed` is the port that the user wants for the worker.
pub(crate) fn port_option<'a>(
    exec_argv: impl IntoIterator<Item = &'a str>,
    node_options: &'a str,
    fixed: Option<u16>,
    number: u32,
) -> Option<String> {
    let mut port = None;
    let mut words = node_options.split_whitespace().chain(exec_argv);
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let value = match name {
            // The value of these two may be a word of its own.
            "--inspect-port" | "--debug-port" => value.or_else(|| words.next()),
            "--inspect" | "--inspect-brk" | "--inspect-wait" => value,
            _ => continue,
        };
        let named = value.and_then(port_of);
        port = named.or(port).or(Some(PORT_DEFAULT));
    }
    let port = match (port?, fixed) {
        (_, Some(fixed)) => fixed,
        (0, None) => return None,
        (first, None) => counted(first, number),
    };
    Some(format!("--inspect-port={port}"))
}

/// Returns the port of `[HOST:]PORT`; `None` when there is only a host.
fn port_of(value: &str) -> Option<u16> {
    value.rsplit(':').next()?.parse().ok()
}

fn counted(first: u16, number: u32) -> u16 {
    let ports = u32::from(u16::MAX) - PORT_MIN + 1;
    let port = u32::from(first) + number % ports;
    let port = if port > u32::from(u16::MAX) { port - ports } else { port };
    u16::try_from(port).expect("between the lowest and the highest port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_counts_up_from_the_last_one_that_is_named() {
        for (argv, variable, expected) in [
            (&[][..], "", None),
            (&["--max-old-space-size=100"], "--require ./inspect.js", None),
            (&["--inspect"], "", Some(9232)),
            (&["--inspect=9300"], "", Some(9303)),
            (&["--inspect-brk=127.0.0.1:9300"], "", Some(9303)),
            (&["--inspect-wait=[::1]:9300"], "", Some(9303)),
            (&["--inspect=localhost"], "", Some(9232)),
            (&["--inspect", "--inspect-port=9300"], "", Some(9303)),
            (&["--inspect-port", "9300", "--inspect"], "", Some(9303)),
            (&["--debug-port=9300"], "", Some(9303)),
            (&[], "--no-warnings --inspect=9400", Some(9403)),
            (&["--inspect"], "--inspect-port=9400", Some(9403)),
            (&["--inspect=9300"], "--inspect=9400", Some(9303)),
            (&["--inspect=0"], "", None),
            (&["--inspect=65534"], "", Some(1025)),
            (&["--inspector"], "", None),
        ] {
            let option = port_option(argv.iter().copied(), variable, None, 3);
            let expected = expected.map(|port: u16| format!("--inspect-port={port}"));
            assert_eq!(option, expected, "{argv:?} {variable:?}");
        }
    }

    #[test]
    fn a_fixed_port_is_for_programs_with_an_inspector_only() {
        let option = |argv: &[&'static str]| port_option(argv.iter().copied(), "", Some(0), 3);
        assert_eq!(option(&["--inspect=9300"]).as_deref(), Some("--inspect-port=0"));
        assert_eq!(option(&[]), None);
    }

    #[test]
    fn every_worker_has_a_port() {
        for number in [1, 64_511, 64_512, 64_513, u32::MAX] {
            for first in [1, 1024, 9229, u16::MAX] {
                assert!(counted(first, number) >= first.min(1024), "{first} and {number}");
            }
        }
        assert_eq!(counted(u16::MAX, 1), 1024);
    }
}
