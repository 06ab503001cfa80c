//! How a primary grows from few workers to many.

use std::time::Duration;

use super::{CLIENTS, Role, Server};
use crate::context::{Contender, Context};
use crate::load::{self, Connections};
use crate::report::{Chart, Measure, Unit};
use crate::stats::Better;

const FEW: u32 = 2;
const MANY: u32 = 200;

pub fn measures(context: &Context) -> Vec<Measure> {
    context.progress.show("cluster, many workers", "starting", "", 0, 1);
    let lanes = [(FEW, "brood, 2 workers"), (MANY, "brood, 200 workers")];
    let lanes = lanes.map(|(count, name)| (count, name, Server::native("brood", count, &[])));
    let mut time = Measure::new(
        "Processor time of the primary per new connection, by workers",
        Unit::Nanoseconds,
        Better::Lower,
    );
    let contenders = lanes.iter().map(|(_, name, server)| match server {
        Err(why) => Contender::absent(Role::Ours, *name, why.clone()),
        Ok(server) => Contender::new(Role::Ours, *name, || per_connection(context, server)),
    });
    let contenders = contenders.collect();
    time.rows.push(context.compare("cluster, many", ("", 0.0), Better::Lower, contenders));
    let mut memory = Measure::new("Resident memory of the primary", Unit::Bytes, Better::Lower);
    let few = lanes[0].2.as_ref().ok().and_then(|server| load::resident(server.child.id()));
    let mut contenders: Vec<_> = lanes
        .iter()
        .map(|(_, name, server)| match server {
            Err(why) => Contender::absent(Role::Ours, *name, why.clone()),
            Ok(server) => Contender::new(Role::Ours, *name, || {
                let bytes = load::resident(server.child.id()).ok_or("it has ended")?;
                Ok::<_, &str>(vec![bytes])
            }),
        })
        .collect();
    if let (Ok(server), Some(few)) = (&lanes[1].2, few) {
        contenders.push(Contender::new(Role::Ours, "each worker more", move || {
            let bytes = load::resident(server.child.id()).ok_or("it has ended")?;
            Ok::<_, &str>(vec![(bytes - few).max(0.0) / f64::from(MANY - FEW)])
        }));
    }
    memory.rows.push(context.compare("cluster, memory", ("", 0.0), Better::Lower, contenders));
    memory.chart = Chart::None;
    vec![time, memory]
}

fn per_connection(context: &Context, server: &Server) -> Result<Vec<f64>, String> {
    let most = context.pick(1_000, 5_000);
    let (before, _) = load::processor_time(server.child.id());
    let until = (Duration::from_secs(5), most);
    let load = load::run(server.address, CLIENTS, until, Connections::New);
    let load = load.map_err(|error| error.to_string())?;
    let (after, _) = load::processor_time(server.child.id());
    match load.requests {
        0 => Err("no answers".to_owned()),
        requests => Ok(vec![(after - before) / requests as f64]),
    }
}
