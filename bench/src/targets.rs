//! The targets of the figures, and the verdicts about them.
//!
//! A target compares ours with another contender of the same measure, round by round, or with a
//! number. One table holds the targets of all topics.
//!
//! Pure.

use crate::report::{Measure, Topic, digits};
use crate::stats::{Summary, quantile};

/// A target.
#[derive(Debug)]
pub struct Target {
    pub topic: &'static str,
    /// The measure's title.
    pub measure: &'static str,
    /// The row's label; empty for the last row.
    pub row: &'static str,
    pub ours: &'static str,
    pub against: Against,
    pub bound: Bound,
}

/// The divisor of our figure.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// Another contender of the same row.
    Contender(&'static str),
    /// No divisor: the figure itself counts.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// The head of the table of verdicts.
pub const HEAD: [&str; 4] = ["target", "to reach", "measured", ""];

/// Returns the verdict about each target of a topic.
pub fn verdicts(topic: &Topic) -> Vec<[String; 4]> {
    let of_topic = ALL.iter().filter(|target| target.topic == topic.name);
    of_topic.map(|target| target.line(topic)).collect()
}

impl Target {
    fn line(&self, topic: &Topic) -> [String; 4] {
        let measure = topic.measures.iter().find(|measure| measure.title == self.measure);
        let place = if self.row.is_empty() { String::new() } else { format!(" ({})", self.row) };
        let other = match self.against {
            Against::Contender(name) => format!(", to {name}"),
            Against::Nothing => String::new(),
        };
        let goal = format!("{}{place}: {}{other}", self.measure, self.ours);
        let (sign, bound) = match self.bound {
            Bound::AtMost(bound) => ("≤", bound),
            Bound::AtLeast(bound) => ("≥", bound),
        };
        let show = |value: f64| match (self.against, measure) {
            (Against::Nothing, Some(measure)) => measure.unit.show(value),
            (Against::Nothing, None) => digits(value),
            _ => format!("{} ×", digits(value)),
        };
        let reach = format!("{sign} {}", show(bound));
        match measure.ok_or("not measured").and_then(|measure| self.rounds(measure)) {
            Err(why) => [goal, reach, why.to_owned(), "open".to_owned()],
            Ok(rounds) => {
                let part = |part| quantile(&rounds, part).unwrap_or(f64::NAN);
                let (low, middle, high) = (part(0.25), part(0.5), part(0.75));
                let text = format!("{} ({}–{})", show(middle), show(low), show(high));
                [goal, reach, text, self.verdict(low, middle, high).to_owned()]
            }
        }
    }

    /// Returns the figure of each round.
    fn rounds(&self, measure: &Measure) -> Result<Vec<f64>, &'static str> {
        let summary = |label: &str, contender: &str| -> Result<&Summary, &'static str> {
            let mut rows = measure.rows.iter().rev();
            let row = rows.find(|row| label.is_empty() || row.label == label);
            let cell = row.ok_or("that row was not measured")?.cell(contender);
            cell.and_then(|cell| cell.summary()).ok_or("a contender was absent")
        };
        let ours = &summary(self.row, self.ours)?.rounds;
        let other = match self.against {
            Against::Nothing => return Ok(ours.clone()),
            Against::Contender(name) => summary(self.row, name)?,
        };
        Ok(ours.iter().zip(&other.rounds).map(|(ours, other)| ours / other).collect())
    }

    fn verdict(&self, low: f64, middle: f64, high: f64) -> &'static str {
        let (met, near) = match self.bound {
            Bound::AtMost(bound) => (middle <= bound, low <= bound && bound < high),
            Bound::AtLeast(bound) => (middle >= bound, low < bound && bound <= high),
        };
        match (met, near) {
            (true, false) => "met",
            (true, true) => "met, within the noise",
            (false, true) => "missed, within the noise",
            (false, false) => "**missed**",
        }
    }
}

/// Returns a target against another contender.
const fn to(
    place: (&'static str, &'static str, &'static str),
    ours: &'static str,
    other: &'static str,
    bound: Bound,
) -> Target {
    let (topic, measure, row) = place;
    Target { topic, measure, row, ours, against: Against::Contender(other), bound }
}

/// Returns a target for the figure itself.
const fn alone(
    place: (&'static str, &'static str, &'static str),
    ours: &'static str,
    bound: Bound,
) -> Target {
    let (topic, measure, row) = place;
    Target { topic, measure, row, ours, against: Against::Nothing, bound }
}

use Bound::{AtLeast, AtMost};

const PLAIN: &str = "Spawn to exit, no options";
const PIPES: &str = "Spawn to exit, with three pipes";
const ALL_OPTIONS: &str =
    "Spawn to exit, with uid, gid, 3 descriptors, cwd, process group, limit, mask";
const FORK: &str = "Fork to the first message";
const HEAP: &str = "Heap of the parent for each idle child";
const WAKES: &str = "Wake-ups of the parent while nothing happens";
const CROWD: &str = "From the end of all children to the last exit seen";
const ROUND_TRIP: &str = "Round trip of 64 typed bytes";
const BATCHED: &str = "One way, 64 typed bytes, many per system call";
const EACH: &str = "One way, 64 typed bytes, one call each";
const LARGE: &str = "One way, large payloads";
const SHARED: &str = "16 MiB of shared memory handed over, and its first page read";
const ENDPOINT_HEAP: &str = "Heap of an idle endpoint on the loop (its limit is 4096)";
const CPUS: &str = "CPUs, by the reader that stays open";
const AVAILABLE: &str = "Available memory, by the reader that stays open";
const PARALLELISM: &str = "Available parallelism, by the reader that stays open";
const INTERFACES: &str = "os_info::network_interfaces";
const NEW_TIME: &str = "Processor time per new connection";
const KEPT_TIME: &str = "Processor time per kept-alive request";
const UNEVEN: &str = "Unevenness of new connections";
const PRIMARY: &str = "Processor time of the primary per new connection";
const GROWTH: &str = "Processor time of the primary per new connection, by workers";
const KILL: &str = "From the kill of a worker to the first answer of its replacement";
const MEMORY: &str = "Resident memory of the primary";
const SCRIPT_TRIP: &str = "JSON round trip with a Node child";
const SCRIPTS: &str = "brood, Node workers";
const RR: &str = "brood, round robin";
const ANY: &str = "brood, any descriptor";
const MEM: &str = "brood, shared memory";
const STREAM: &str = "UnixStream, read into 1 MiB";
const TYPED: &str = "ipc-channel, typed bytes";

/// All targets.
pub const ALL: &[Target] = &[
    to(("spawn", PLAIN, "0 MiB"), "brood", "C posix_spawn", AtMost(1.05)),
    to(("spawn", PLAIN, ""), "brood", "C posix_spawn", AtMost(1.05)),
    to(("spawn", PIPES, "0 MiB"), "brood", "Node spawn", AtMost(0.5)),
    to(("spawn", PIPES, "600 MiB"), "brood", "Node spawn", AtMost(0.1)),
    to(("spawn", ALL_OPTIONS, ""), "brood", "brood in a small process", AtMost(1.10)),
    to(("spawn", "Reading what `yes` writes", ""), "brood", "plain read loop", AtLeast(0.95)),
    to(("fork", FORK, "0 MiB"), "brood fork", "spawn to exit of /bin/true", AtMost(3.0)),
    to(("fork", FORK, "0 MiB"), "brood fork", "Node fork", AtMost(0.05)),
    alone(("idle", HEAP, "1000"), "brood", AtMost(2048.0)),
    alone(("idle", WAKES, "1000"), "brood", AtMost(0.0)),
    alone(("idle", WAKES, "1000"), "brood, with channels", AtMost(0.0)),
    to(("idle", CROWD, ""), "brood, events", "waitid", AtMost(2.0)),
    to(("ipc", ROUND_TRIP, "two free cores"), "brood, asleep", "UnixStream", AtMost(1.10)),
    to(("ipc", ROUND_TRIP, "two free cores"), "brood, asleep", "ipc-channel", AtMost(1.0)),
    to(("ipc", ROUND_TRIP, "two free cores"), "brood, adaptive", "ipc-channel", AtMost(0.2)),
    to(("ipc", ROUND_TRIP, "one core"), "brood, adaptive", "brood, asleep", AtMost(1.05)),
    to(
        ("ipc", ROUND_TRIP, "beside a busy process"),
        "brood, adaptive",
        "brood, asleep",
        AtMost(1.05),
    ),
    alone(("ipc", BATCHED, "64 bytes"), "brood, feed", AtLeast(5e6)),
    to(("ipc", BATCHED, "64 bytes"), "brood, feed", "ipc-channel", AtLeast(8.0)),
    to(("ipc", EACH, "64 bytes"), "brood, send", "UnixStream", AtLeast(0.9)),
    to(("ipc", LARGE, "1 MiB"), "brood", STREAM, AtLeast(0.9)),
    to(("ipc", LARGE, "1 MiB"), "brood", TYPED, AtLeast(5.0)),
    to(("ipc", LARGE, "16 MiB"), "brood", STREAM, AtLeast(0.9)),
    to(("ipc", LARGE, "16 MiB"), "brood", TYPED, AtLeast(5.0)),
    to(("ipc", SHARED, "answered each time"), MEM, ANY, AtMost(3.0)),
    to(("ipc", "Descriptors passed", "1"), "brood", "sendmsg", AtLeast(0.9)),
    to(("ipc", "Descriptors passed", "16"), "brood", "sendmsg", AtLeast(0.9)),
    alone(("ipc", ENDPOINT_HEAP, ""), "brood", AtMost(4096.0)),
    to(("ipc", SCRIPT_TRIP, "two free cores"), "brood to Node", "Node to Node", AtMost(1.0)),
    to(("os", "CPUs: model, speed, times", ""), "os_info::cpus", "Node", AtMost(0.7)),
    to(("os", CPUS, ""), "System::cpus", "Node", AtMost(0.4)),
    to(("os", "Available memory", ""), "os_info::freemem", "Node", AtMost(1.0)),
    to(("os", AVAILABLE, ""), "System::freemem", "Node", AtMost(0.6)),
    to(("os", "Available parallelism", ""), "os_info::available_parallelism", "std", AtMost(1.0)),
    to(("os", PARALLELISM, ""), "System::available_parallelism", "std", AtMost(0.5)),
    to(("os", "Network interfaces", ""), INTERFACES, "bare getifaddrs", AtMost(1.1)),
    alone(("os", "All memory", ""), "os_info::totalmem", AtMost(1000.0)),
    alone(("os", "Time since the start", ""), "os_info::uptime", AtMost(1000.0)),
    alone(("os", "Load", ""), "os_info::loadavg", AtMost(1000.0)),
    to(("cluster", NEW_TIME, ""), RR, "axum, plain shared listener", AtMost(1.15)),
    to(("cluster", NEW_TIME, ""), RR, "Node cluster", AtMost(0.35)),
    to(("cluster", NEW_TIME, ""), SCRIPTS, "Node cluster", AtMost(0.85)),
    to(("cluster", KEPT_TIME, ""), RR, "axum, one process", AtMost(1.05)),
    to(("cluster", KEPT_TIME, ""), RR, "Node cluster", AtMost(0.6)),
    alone(("cluster", UNEVEN, ""), RR, AtMost(0.02)),
    alone(("cluster", PRIMARY, ""), RR, AtMost(12_000.0)),
    to(("cluster", GROWTH, ""), "brood, 200 workers", "brood, 2 workers", AtMost(1.2)),
    alone(("cluster", KILL, ""), RR, AtMost(15e6)),
    alone(("cluster", MEMORY, ""), "brood, 2 workers", AtMost(6e6)),
    alone(("cluster", MEMORY, ""), "each worker more", AtMost(50e3)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cell, Outcome, Role, Row, Unit};
    use crate::stats::Better;

    fn topic(cells: &[(&str, &[f64])]) -> Topic {
        let mut measure = Measure::new(PLAIN, Unit::Nanoseconds, Better::Lower);
        let cells = cells.iter().map(|(name, rounds)| Cell {
            contender: (*name).to_owned(),
            role: Role::Ours,
            outcome: Outcome::Measured(
                Summary::of(&rounds.iter().map(|&round| vec![round]).collect::<Vec<_>>()).unwrap(),
            ),
            ratio: None,
        });
        let row = Row { at: 0.0, label: "0 MiB".to_owned(), cells: cells.collect() };
        measure.rows.push(row);
        let (name, title) = ("spawn".to_owned(), String::new());
        Topic { name, title, notes: Vec::new(), measures: vec![measure] }
    }

    fn check(ours: &[f64], peer: &[f64], verdict: &str) {
        let lines = verdicts(&topic(&[("brood", ours), ("C posix_spawn", peer)]));
        assert_eq!(lines[0][3], verdict, "{:?}", lines[0]);
    }

    #[test]
    fn a_target_is_met_missed_or_within_the_noise() {
        check(&[1.0; 4], &[1.0; 4], "met");
        check(&[2.0; 4], &[1.0; 4], "**missed**");
        check(&[1.0, 1.0, 1.0, 1.2, 1.2], &[1.0; 5], "met, within the noise");
        check(&[1.0, 1.0, 1.1, 1.1, 1.1], &[1.0; 5], "missed, within the noise");
    }

    #[test]
    fn targets_without_figures_stay_open() {
        let lines = verdicts(&topic(&[("brood", &[1.0])]));
        assert_eq!(lines[0][2..], ["a contender was absent", "open"]);
        assert!(lines.iter().any(|line| line[2] == "not measured"));
    }
}
