//! JSON round trips with a Node child: from Rust, and from Node.

use std::time::Instant;

use child_process::{Child, Event, Fork, Module, Stdio};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Failure, contender};
use crate::context::{Contender, Context};
use crate::report::{Chart, Measure, Role, Unit};
use crate::stats::Better;

/// The message, the same as in `trip.js`.
#[derive(Serialize, Deserialize)]
struct Message {
    id: u32,
    text: String,
    list: Vec<u32>,
}

struct Ours {
    child: Child,
    next: Box<dyn Fn() -> Option<Event>>,
}

pub fn measure(context: &Context) -> Measure {
    let mut measure =
        Measure::new("JSON round trip with a Node child", Unit::Nanoseconds, Better::Lower)
            .along("case", Chart::Bars);
    let times = context.pick(2_000, 20_000);
    let script = super::super::script_file("trip", include_str!("../../peers/trip.js"));
    let file = script.as_ref().map_err(ToString::to_string);
    let node = context.node.as_ref().map_err(Clone::clone);
    let both = node.and_then(|node| Ok((node, file?)));
    let contenders = match both {
        Ok((node, file)) => vec![
            contender(Role::Ours, "brood to Node", Ours::start(file), move |ours| {
                ours.trips(times)
            }),
            contender(
                Role::Peer,
                "Node to Node",
                node.start_file(file, &[("BENCH_FILE", file)]).map_err(Failure::from),
                move |script| Ok(script.ask(&json!({ "trip": times }))?),
            ),
        ],
        Err(why) => vec![
            Contender::absent(Role::Ours, "brood to Node", why.clone()),
            Contender::absent(Role::Peer, "Node to Node", why),
        ],
    };
    let row = context.compare("ipc", ("two free cores", 0.0), Better::Lower, contenders);
    measure.rows.push(row);
    if let Ok(file) = script {
        let _ = std::fs::remove_file(file);
    }
    measure
}

impl Ours {
    fn start(file: &str) -> Result<Ours, Failure> {
        let mut fork = Fork::new(Module::node(file));
        fork.env("BENCH_CHILD", "1").kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        let child = fork.spawn()?;
        let events = child.take_events().expect("taken once");
        Ok(Ours { child, next: Box::new(move || events.recv().ok()) })
    }

    fn trips(&self, times: usize) -> Result<Vec<f64>, Failure> {
        let text = "a message like many others".to_owned();
        let mut message = Message { id: 7, text, list: vec![1, 2, 3] };
        let begin = Instant::now();
        for _ in 0..times {
            self.child.send(&message)?;
            message = loop {
                if let Event::Message(message) = (self.next)().ok_or("the script ended")? {
                    break message.decode()?;
                }
            };
        }
        Ok(vec![begin.elapsed().as_nanos() as f64 / times as f64])
    }
}
