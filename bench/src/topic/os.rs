//! Topic `os`: the cost of one question about the machine.

use std::cell::RefCell;
use std::hint::black_box;
use std::ptr;
use std::thread::available_parallelism;
use std::time::Instant;

use os_info::System;
use serde_json::json;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Networks};

use crate::context::{Contender, Context};
use crate::node::Script;
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The number of samples in a round. Each is the mean of a batch of calls.
const BATCHES: usize = 4;

pub fn run(context: &Context) -> Topic {
    let node = context.node.as_ref().map_err(Clone::clone);
    let node = RefCell::new(node.and_then(|node| node.start(include_str!("../peers/os.js"))));
    let bench = Bench { context, node: &node };
    let mut measures = processors(&bench);
    measures.extend(memory(&bench));
    measures.extend(threads(&bench));
    measures.extend([interfaces(&bench)]);
    measures.extend(moments(&bench));
    Topic {
        name: "os".to_owned(),
        title: "Asking about the machine".to_owned(),
        notes: vec![
            "Time per call; each sample is the mean of a batch. `System` is the reader that keeps \
             its files open; the free functions open and close their files. std and num_cpus \
             round a CPU quota differently from brood, which rounds up; num_cpus reads the quota \
             once per process. Node 20 ignores quotas, and reports no speed of CPUs on virtual \
             machines, for which brood also reads `/proc/cpuinfo`."
                .to_owned(),
        ],
        measures,
    }
}

struct Bench<'a> {
    context: &'a Context,
    node: &'a RefCell<Result<Script, String>>,
}

impl<'a> Bench<'a> {
    fn call<'c, T>(
        &self,
        role: Role,
        name: &str,
        mut once: impl FnMut() -> T + 'c,
    ) -> Contender<'c> {
        let calls = self.calls();
        Contender::new(role, name, move || -> Result<_, String> {
            let batch = || {
                let begin = Instant::now();
                for _ in 0..calls {
                    black_box(once());
                }
                begin.elapsed().as_nanos() as f64 / f64::from(calls)
            };
            Ok(std::iter::repeat_with(batch).take(BATCHES).collect())
        })
    }

    fn node(&self, call: &'static str) -> Contender<'a> {
        if let Err(why) = &*self.node.borrow() {
            return Contender::absent(Role::Peer, "Node", why.clone());
        }
        let (node, calls) = (self.node, self.calls());
        Contender::new(Role::Peer, "Node", move || {
            let request = json!({ "call": call, "calls": calls, "batches": BATCHES });
            node.borrow_mut().as_mut().map_err(|why| why.clone())?.ask(&request)
        })
    }

    fn calls(&self) -> u32 {
        self.context.pick(200, 500)
    }

    fn measure(&self, title: &str, contenders: Vec<Contender<'_>>) -> Measure {
        let mut measure =
            Measure::new(title, Unit::Nanoseconds, Better::Lower).along("", Chart::None);
        let row = self.context.compare(title, ("", 0.0), Better::Lower, contenders);
        measure.rows.push(row);
        measure
    }
}

fn processors(bench: &Bench<'_>) -> Vec<Measure> {
    let mut kept = System::new();
    let mut theirs = sysinfo::System::new().expect("this is a system that sysinfo knows");
    let free_measure = bench.measure(
        "CPUs: model, speed, times",
        vec![
            bench.call(Role::Ours, "os_info::cpus", os_info::cpus),
            bench.node("cpus"),
            bench.call(Role::Peer, "sysinfo", || {
                let kind = CpuRefreshKind::everything();
                theirs.refresh_cpu_specifics(kind);
                theirs.cpus().len()
            }),
        ],
    );
    let kept_measure = bench.measure(
        "CPUs, by the reader that stays open",
        vec![
            bench.call(Role::Ours, "System::cpus", || kept.cpus().map(<[_]>::len)),
            bench.node("cpus"),
        ],
    );
    vec![free_measure, kept_measure]
}

fn memory(bench: &Bench<'_>) -> Vec<Measure> {
    let mut kept = System::new();
    let mut theirs = sysinfo::System::new().expect("this is a system that sysinfo knows");
    vec![
        bench.measure(
            "Available memory",
            vec![
                bench.call(Role::Ours, "os_info::freemem", os_info::freemem),
                bench.node("freemem"),
                bench.call(Role::Peer, "sysinfo", || {
                    let kind = MemoryRefreshKind::nothing().with_ram();
                    theirs.refresh_memory_specifics(kind);
                    theirs.available_memory()
                }),
            ],
        ),
        bench.measure(
            "Available memory, by the reader that stays open",
            vec![
                bench.call(Role::Ours, "System::freemem", || kept.freemem()),
                bench.node("freemem"),
            ],
        ),
        bench.measure(
            "All memory",
            vec![
                bench.call(Role::Ours, "os_info::totalmem", os_info::totalmem),
                bench.node("totalmem"),
            ],
        ),
    ]
}

fn threads(bench: &Bench<'_>) -> Vec<Measure> {
    let mut kept = System::new();
    let std = || bench.call(Role::Peer, "std", || available_parallelism().ok());
    vec![
        bench.measure(
            "Available parallelism",
            vec![
                bench.call(
                    Role::Ours,
                    "os_info::available_parallelism",
                    os_info::available_parallelism,
                ),
                std(),
                bench.node("availableParallelism"),
                bench.call(Role::Peer, "num_cpus (cached)", num_cpus::get),
            ],
        ),
        bench.measure(
            "Available parallelism, by the reader that stays open",
            vec![
                bench.call(Role::Ours, "System::available_parallelism", || {
                    kept.available_parallelism()
                }),
                std(),
            ],
        ),
    ]
}

fn interfaces(bench: &Bench<'_>) -> Measure {
    bench.measure(
        "Network interfaces",
        vec![
            bench.call(Role::Ours, "os_info::network_interfaces", os_info::network_interfaces),
            bench.call(Role::Limit, "bare getifaddrs", bare_getifaddrs),
            bench.node("networkInterfaces"),
            bench.call(Role::Peer, "sysinfo", Networks::new_with_refreshed_list),
        ],
    )
}

fn bare_getifaddrs() {
    let mut list = ptr::null_mut();
    // SAFETY: the call writes one pointer.
    if unsafe { libc::getifaddrs(&raw mut list) } == 0 {
        // SAFETY: the list came from the call above and is freed once.
        unsafe { libc::freeifaddrs(list) };
    }
}

fn moments(bench: &Bench<'_>) -> Vec<Measure> {
    vec![
        bench.measure(
            "Time since the start",
            vec![
                bench.call(Role::Ours, "os_info::uptime", os_info::uptime),
                bench.node("uptime"),
                bench.call(Role::Peer, "sysinfo", sysinfo::System::uptime),
            ],
        ),
        bench.measure(
            "Load",
            vec![
                bench.call(Role::Ours, "os_info::loadavg", os_info::loadavg),
                bench.node("loadavg"),
                bench.call(Role::Peer, "sysinfo", sysinfo::System::load_average),
            ],
        ),
    ]
}
