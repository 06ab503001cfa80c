//! The facts about this machine, and the limits of the container.
//!
//! ```text
//! cargo run --example os_info             # a table for people; measures CPU use for one second
//! cargo run --example os_info -- --json   # one JSON object, with the keys of Node's `os`
//! ```
//!
//! You will see the host beside the container: a container on a machine of 64 CPUs may get 1.5 of
//! them, and half of the memory. The bars show the memory in use and the load of each core.
//!
//! The JSON has Node's keys and values, so that the two can be compared:
//!
//! ```text
//! node -p 'JSON.stringify({ cpus: os.cpus(), networkInterfaces: os.networkInterfaces() })'
//! ```

use os_info::{Error, Limits, Pressure, Stalls, System, SystemUsage, constants};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str = "usage: os_info [--json]\n\n  \
    without a flag: a table, with CPU use over one second\n  \
    --json          one JSON object, with the keys of Node's os module";

/// The time over which CPU use is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// The length of a bar in characters.
const BAR: usize = 32;

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    let mut report: fn() -> Result<String, Error> = table;
    for arg in std::env::args_os().skip(1) {
        match arg.to_str() {
            Some("--json") => report = || as_json().map(|object| object.to_string() + "\n"),
            Some("--help" | "-h") => {
                report = || Ok(format!("{USAGE}\n"));
                break;
            }
            _ => {
                print_error(&format!("unknown argument {}\n\n{USAGE}", arg.to_string_lossy()));
                return ExitCode::from(2);
            }
        }
    }
    match report() {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // The reader (`| head`) needs no more output.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                print_error(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // With its causes.
            print_error(&format!("{error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints an error. A failure to print is ignored, because the exit code also shows the error.
fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "os_info: {text}");
}

fn as_json() -> Result<Value, Error> {
    let mut interfaces = Map::new();
    for interface in os_info::network_interfaces()? {
        interfaces.insert(interface.name, json!(interface.addresses));
    }
    let table = |names: &[(&str, i32)]| -> Map<String, Value> {
        names.iter().map(|(name, number)| ((*name).to_owned(), json!(number))).collect()
    };
    Ok(json!({
        "arch": os_info::arch(),
        "availableParallelism": os_info::available_parallelism(),
        "cpus": os_info::cpus()?,
        "endianness": os_info::endianness(),
        "freemem": os_info::freemem()?,
        "getPriority": os_info::get_priority(0)?,
        "homedir": os_info::homedir().ok().map(|home| home.to_string_lossy().into_owned()),
        "hostname": os_info::hostname()?,
        "loadavg": os_info::loadavg()?,
        "machine": os_info::machine()?,
        "networkInterfaces": interfaces,
        "platform": os_info::platform(),
        "release": os_info::release()?,
        "tmpdir": os_info::tmpdir().to_string_lossy(),
        "totalmem": os_info::totalmem()?,
        "type": os_info::os_type()?,
        "uptime": (os_info::uptime()?.as_secs_f64() * 100.0).floor() / 100.0,
        "userInfo": os_info::user_info()?,
        "version": os_info::version()?,
        "EOL": os_info::EOL,
        "devNull": os_info::DEV_NULL,
        "constants": {
            "UV_UDP_REUSEADDR": constants::UV_UDP_REUSEADDR,
            "dlopen": table(constants::DLOPEN),
            "errno": table(constants::ERRNO),
            "signals": table(constants::SIGNALS),
            "priority": table(constants::PRIORITIES),
        },
        // Node has no keys for these.
        "limits": os_info::limits().ok(),
        "pressure": os_info::pressure(),
    }))
}

fn table() -> Result<String, Error> {
    let mut system = System::new();
    let before = system.snapshot()?;
    thread::sleep(INTERVAL);
    let usage = system.snapshot()?.since(&before);
    let mut out = String::new();
    about(&mut out)?;
    memory(&mut out, &usage);
    container(&mut out, &os_info::limits().unwrap_or_default());
    pressure(&mut out, &os_info::pressure());
    network(&mut out)?;
    cores(&mut out, &usage, &mut system)?;
    Ok(out)
}

fn about(out: &mut String) -> Result<(), Error> {
    let user = os_info::user_info()?;
    let name =
        user.username.map_or_else(|| "no name".into(), |name| name.to_string_lossy().into_owned());
    title(out, &os_info::hostname()?);
    line(
        out,
        "system",
        &format!("{} {} ({})", os_info::os_type()?, os_info::release()?, os_info::machine()?),
    );
    line(out, "up", &duration(os_info::uptime()?));
    let [one, five, fifteen] = os_info::loadavg()?;
    line(out, "load", &format!("{one:.2}  {five:.2}  {fifteen:.2}   over 1, 5 and 15 minutes"));
    line(out, "user", &format!("{name} (uid {}, gid {})", user.uid, user.gid));
    let home = os_info::homedir();
    line(out, "home", &home.map_or_else(|why| why.to_string(), |home| home.display().to_string()));
    line(out, "temporary", &os_info::tmpdir().display().to_string());
    Ok(())
}

fn memory(out: &mut String, usage: &SystemUsage) {
    let memory = usage.memory;
    let bars = [
        ("in use", memory.available_bytes, memory.total_bytes),
        ("swap", memory.swap_free_bytes, memory.swap_total_bytes),
    ];
    title(out, "memory");
    for (name, free, total) in bars.into_iter().filter(|(_, _, total)| *total > 0) {
        let used = total.saturating_sub(free);
        let share = used as f64 / total as f64;
        line(out, name, &format!("{} {} of {}", bar(share), bytes(used), bytes(total)));
    }
}

fn container(out: &mut String, limits: &Limits) {
    title(out, "allowed to this process");
    let unlimited = || "no limit".to_owned();
    line(
        out,
        "threads",
        &format!("{} worth starting at the same time", os_info::available_parallelism()),
    );
    let quota = limits.cpu_quota.map(|quota| format!("{:.2} CPUs", quota.cpus()));
    line(out, "CPU quota", &quota.unwrap_or_else(unlimited));
    if let Some(set) = &limits.cpu_set {
        line(out, "CPU set", &format!("{} of them: {}", set.len(), ranges(set)));
    }
    let memory = limits.memory;
    let used = memory.current_bytes.map(|used| format!(", {} in use", bytes(used)));
    let max = memory.max_bytes.map_or_else(unlimited, bytes);
    line(out, "memory", &(max + &used.unwrap_or_default()));
    if let Some(high) = memory.high_bytes {
        line(out, "slowed from", &bytes(high));
    }
    let used = limits.pids_current.map(|count| format!(", {count} in use"));
    let max = limits.pids_max.map_or_else(unlimited, |max| max.to_string());
    line(out, "processes", &(max + &used.unwrap_or_default()));
}

fn pressure(out: &mut String, pressure: &Pressure) {
    let all = [("CPU", pressure.cpu), ("memory", pressure.memory), ("disks", pressure.io)];
    if all.iter().any(|(_, stalls)| stalls.is_some()) {
        title(out, "time in which tasks waited");
    }
    let text = |stalls: Stalls| {
        let some = stalls.some;
        let (short, long) = (some.avg10_percent, some.avg300_percent);
        format!("{} {short:.1} %, {long:.1} % over 5 minutes", bar(short / 100.0))
    };
    for (name, stalls) in all {
        if let Some(stalls) = stalls {
            line(out, &format!("for {name}"), &text(stalls));
        }
    }
}

fn network(out: &mut String) -> Result<(), Error> {
    title(out, "network");
    for interface in os_info::network_interfaces()? {
        let mut name = interface.name.as_str();
        for address in &interface.addresses {
            let shown = address.cidr().unwrap_or_else(|| address.address.to_string());
            let note = if address.internal { "loopback".to_owned() } else { address.mac_text() };
            line(out, name, &format!("{shown:<43} {note}"));
            name = "";
        }
    }
    Ok(())
}

fn cores(out: &mut String, usage: &SystemUsage, system: &mut System) -> Result<(), Error> {
    let cpus = system.cpus()?;
    title(out, &format!("{} CPUs, over {:.1} s", cpus.len(), usage.interval.as_secs_f64()));
    let mut last = "";
    for cpu in cpus {
        let busy = usage.cpus.iter().find(|usage| usage.id == cpu.id).map_or(0.0, |cpu| cpu.busy);
        // A model is printed once, not for each core.
        let model = if cpu.model == last { "" } else { cpu.model.as_str() };
        let speed =
            if cpu.speed_mhz > 0 { format!("{} MHz", cpu.speed_mhz) } else { String::new() };
        let text = format!("{} {:>3.0} %  {speed:>8}  {model}", bar(busy), busy * 100.0);
        line(out, &format!("core {}", cpu.id), text.trim_end());
        last = &cpu.model;
    }
    line(out, "all", &format!("{} {:>3.0} %", bar(usage.cpu), usage.cpu * 100.0));
    Ok(())
}

fn title(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
    out.push('\n');
}

fn line(out: &mut String, name: &str, value: &str) {
    let text = format!("  {name:<12} {value}");
    out.push_str(text.trim_end());
    out.push('\n');
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0);
    format!("{value:.decimals$} {}", units[unit])
}

fn duration(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Writes a list of CPUs as the kernel does: `0-3,8`.
fn ranges(cpus: &[u32]) -> String {
    let mut text = String::new();
    for run in cpus.chunk_by(|a, b| a + 1 == *b) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = match run {
            [cpu] => write!(text, "{comma}{cpu}"),
            _ => write!(text, "{comma}{}-{}", run[0], run[run.len() - 1]),
        };
    }
    text
}
