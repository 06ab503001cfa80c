//! Topic `idle`: the memory and the wake-ups that idle children cost their parent.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;

use serde_json::json;

mod crowd;

use crate::context::{Contender, Context};
use crate::idle;
use crate::node::{Node, Script};
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The holders of children: the name, the part in the comparison, the kind in the role.
const KINDS: [(&str, Role, &str); 4] = [
    ("brood", Role::Ours, "brood"),
    ("brood, with channels", Role::Ours, "brood-fork"),
    ("std::process", Role::Peer, "std"),
    ("tokio::process", Role::Peer, "tokio"),
];

/// The figures of a round: bytes per child, wake-ups per second, and bytes of heap per child where
/// the heap can be measured.
type Figures = Vec<Shown>;
type Shown = (f64, f64, Option<f64>);

/// A holder of children, and the figures of its rounds so far.
struct HolderRuns {
    name: &'static str,
    role: Role,
    holder: Result<Holder, String>,
    seen: Rc<RefCell<Figures>>,
}

enum Holder {
    Native(Script),
    /// A Node script, and the growth of its memory, which it reports once.
    Node(Script, f64),
}

pub fn run(context: &Context) -> Topic {
    let lines = Chart::Lines { log_x: true, log_y: false };
    let axis = "children";
    let mut memory =
        Measure::new("Memory of the parent for each idle child", Unit::Bytes, Better::Lower)
            .along(axis, Chart::Lines { log_x: true, log_y: true });
    let mut wakes = Measure::new(
        "Wake-ups of the parent while nothing happens",
        Unit::PerSecond,
        Better::Lower,
    )
    .along(axis, lines);
    let mut heap =
        Measure::new("Heap of the parent for each idle child", Unit::Bytes, Better::Lower)
            .along(axis, Chart::Lines { log_x: true, log_y: true });
    for count in [1, 100, 1000] {
        let what = format!("idle, {count} children: starting");
        context.progress.show(&what, "", "", 0, 1);
        let mut holders = holders(context, count);
        let label = count.to_string();
        let place = (label.as_str(), f64::from(count));
        let rounds = holders.iter_mut().map(|holder| holder.measured(count)).collect();
        memory.rows.push(context.compare("idle", place, Better::Lower, rounds));
        let again = holders.iter().map(HolderRuns::replayed).collect();
        wakes.rows.push(context.compare("idle", place, Better::Lower, again));
        let again = holders.iter().map(HolderRuns::replayed_heap).collect();
        heap.rows.push(context.compare("idle", place, Better::Lower, again));
    }
    Topic {
        name: "idle".to_owned(),
        title: "Idle children".to_owned(),
        notes: vec![
            "A fresh process holds idle children (`sleep`; with channels: forked modules that have \
             sent one message). Memory is the growth of its resident size, divided by the number \
             of children; with one child the figure is the need of the library itself. Wake-ups \
             are the voluntary context switches of all its threads in half a second, without the \
             switch that ends the measurement. Where a runtime measures, up to 2 per second \
             belong to its timer."
                .to_owned(),
            "The last table is about children that all end at once. It shows the time from the end \
             of their input until the parent has received the last exit. The limit starts the \
             children with the same engine and calls `waitid` for one after the other."
                .to_owned(),
        ],
        measures: vec![memory, heap, wakes, crowd::measure(context)],
    }
}

fn holders(context: &Context, count: u32) -> Vec<HolderRuns> {
    let mut holders: Vec<HolderRuns> = KINDS
        .iter()
        .map(|&(name, role, kind)| HolderRuns::new(name, role, native(kind, count)))
        .collect();
    let node = context.node.clone().and_then(|node| of_node(node, count));
    holders.push(HolderRuns::new("Node spawn", Role::Peer, node));
    holders
}

fn native(kind: &str, count: u32) -> Result<Holder, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let count = count.to_string();
    Node::run(Command::new(program).args(["role", idle::ROLE, kind, &count])).map(Holder::Native)
}

fn of_node(node: Node, count: u32) -> Result<Holder, String> {
    let mut script = node.start(include_str!("../peers/idle.js"))?;
    let grown = script.ask(&json!({ "children": count }))?;
    let grown = grown.first().copied().ok_or("no answer")?;
    Ok(Holder::Node(script, grown))
}

impl HolderRuns {
    fn new(name: &'static str, role: Role, holder: Result<Holder, String>) -> Self {
        Self { name, role, holder, seen: Rc::default() }
    }

    /// Returns a contender that runs rounds, keeps their figures, and yields the memory.
    fn measured(&mut self, count: u32) -> Contender<'_> {
        let seen = Rc::clone(&self.seen);
        match &mut self.holder {
            Err(why) => Contender::absent(self.role, self.name, why.clone()),
            Ok(holder) => Contender::new(self.role, self.name, move || {
                let (grown, woken, heap) = holder.round()?;
                let each = f64::from(count);
                let woken = woken / idle::WATCH.as_secs_f64();
                let figures = (grown / each, woken, heap.map(|heap| heap / each));
                seen.borrow_mut().push(figures);
                Ok::<_, String>(vec![figures.0])
            }),
        }
    }

    /// Returns a contender that yields the wake-ups of the same rounds.
    fn replayed(&self) -> Contender<'_> {
        self.replay(|figures| Some(figures.1))
    }

    /// Returns a contender that yields the heap of the same rounds.
    fn replayed_heap(&self) -> Contender<'_> {
        match &self.holder {
            Ok(Holder::Node(..)) => {
                Contender::absent(self.role, self.name, "its heap cannot be measured")
            }
            _ => self.replay(|figures| figures.2),
        }
    }

    fn replay(&self, figure: fn(&Shown) -> Option<f64>) -> Contender<'_> {
        if let Err(why) = &self.holder {
            return Contender::absent(self.role, self.name, why.clone());
        }
        let mut round = 0;
        Contender::new(self.role, self.name, move || {
            round += 1;
            let seen = self.seen.borrow();
            // The time limit may have cut the number of rounds.
            Ok::<_, String>(seen.get(round - 1).and_then(figure).into_iter().collect())
        })
    }
}

impl Holder {
    fn round(&mut self) -> Result<Shown, String> {
        let answer = match self {
            Self::Native(script) => script.ask(&json!({}))?,
            Self::Node(script, grown) => {
                let mut answer = vec![*grown];
                let watch = json!({ "watch": idle::WATCH.as_millis() });
                answer.extend(script.ask(&watch)?);
                answer
            }
        };
        match answer.as_slice() {
            [grown, woken, heap] => Ok((*grown, *woken, Some(*heap))),
            [grown, woken] => Ok((*grown, *woken, None)),
            _ => Err(format!("answered {answer:?}")),
        }
    }
}
