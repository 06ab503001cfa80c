//! The cost of a primary with few and with many workers.

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
    let servers = [
        (Role::Ours, "brood, 2 workers", Server::lean("brood", FEW)),
        (Role::Ours, "brood, 200 workers", Server::lean("brood", MANY)),
        (Role::Limit, "bare accept and sendmsg, 2 workers", Server::lean("bare", FEW)),
        (Role::Limit, "bare accept and sendmsg, 200 workers", Server::lean("bare", MANY)),
    ];
    vec![time(context, &servers), memory(context, &servers[..2])]
}

type Entry = (Role, &'static str, Result<Server, String>);

fn time(context: &Context, servers: &[Entry]) -> Measure {
    let title = "Processor time of the primary per new connection, by workers";
    let mut time = Measure::new(title, Unit::Nanoseconds, Better::Lower);
    let contenders = servers.iter().map(|(role, name, server)| match server {
        Err(why) => Contender::absent(*role, *name, why.clone()),
        Ok(server) => Contender::new(*role, *name, || per_connection(context, server)),
    });
    let contenders = contenders.collect();
    time.rows.push(context.compare("cluster, many", ("", 0.0), Better::Lower, contenders));
    time
}

fn memory(context: &Context, servers: &[Entry]) -> Measure {
    let mut memory = Measure::new("Resident memory of the primary", Unit::Bytes, Better::Lower);
    let resident = |server: &Server| load::resident(server.child.id()).ok_or("it has ended");
    let mut contenders: Vec<_> = servers
        .iter()
        .map(|(role, name, server)| match server {
            Err(why) => Contender::absent(*role, *name, why.clone()),
            Ok(server) => {
                Contender::new(*role, *name, move || Ok::<_, &str>(vec![resident(server)?]))
            }
        })
        .collect();
    if let [(_, _, Ok(few)), (_, _, Ok(many))] = servers {
        contenders.push(Contender::new(Role::Ours, "each worker more", move || {
            let more = (resident(many)? - resident(few)?).max(0.0);
            Ok::<_, &str>(vec![more / f64::from(MANY - FEW)])
        }));
    }
    memory.rows.push(context.compare("cluster, memory", ("", 0.0), Better::Lower, contenders));
    memory.chart = Chart::None;
    memory
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
