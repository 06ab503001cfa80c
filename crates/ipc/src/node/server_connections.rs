//! Connections that a Node server has sent to this process and still counts.
//!
//! Node's `net.Server` counts the connections that it has sent to other processes, and closes only
//! after all of them have closed. The server asks each process for the number of open connections,
//! and for a notice when none is open. A connection `S` counts as long as the predicate `is_open`
//! of the caller holds.
//!
//! A connection whose server has a longer name than [`KEY_BYTES_MAX`] is not counted: Node's names
//! are addresses.
//!
//! Pure. Memory: at most twice the connections that arrived here and are still open, and as many
//! servers, or [`PRUNE_MIN`] of each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first pause between two polls for a server that wants to close.
const POLL_FIRST: Duration = Duration::from_millis(10);
/// The longest pause between two polls.
const POLL_MAX: Duration = Duration::from_secs(1);

/// The longest name of a server whose connections are counted, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// The number of servers, and of connections of one server, below which none is removed.
const PRUNE_MIN: usize = 16;

/// The connections of every server.
#[derive(Debug)]
pub(crate) struct ServerConnections<S> {
    servers: HashMap<String, Server<S>>,
    /// The number of servers above which those without an open connection are removed.
    prune_at: usize,
}

#[derive(Debug)]
struct Server<S> {
    sockets: Vec<S>,
    /// The number of sockets above which closed ones are removed.
    prune_at: usize,
    /// The time of the next poll and the pause after it, when the server wants to close.
    closing: Option<(Instant, Duration)>,
}

impl<S> ServerConnections<S> {
    pub(crate) fn new() -> ServerConnections<S> {
        ServerConnections { servers: HashMap::new(), prune_at: PRUNE_MIN }
    }

    /// Adds a connection of the server `key`.
    pub(crate) fn add(&mut self, key: String, socket: S, is_open: impl Fn(&S) -> bool) {
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        if self.servers.len() >= self.prune_at && !self.servers.contains_key(&key) {
            self.prune(&is_open);
        }
        let new = Server { sockets: Vec::new(), prune_at: PRUNE_MIN, closing: None };
        let server = self.servers.entry(key).or_insert(new);
        if server.sockets.len() >= server.prune_at {
            server.sockets.retain(&is_open);
            server.prune_at = (2 * server.sockets.len()).max(PRUNE_MIN);
        }
        server.sockets.push(socket);
    }

    /// Removes the servers without an open connection. One that waits for a notice stays until it
    /// has got it.
    fn prune(&mut self, is_open: impl Fn(&S) -> bool) {
        self.servers.retain(|_, server| {
            server.sockets.retain(&is_open);
            !server.sockets.is_empty() || server.closing.is_some()
        });
        self.prune_at = (2 * self.servers.len()).max(PRUNE_MIN);
    }

    /// Returns the number of open connections of the server.
    pub(crate) fn count(&mut self, key: &str, is_open: impl Fn(&S) -> bool) -> usize {
        let Some(server) = self.servers.get_mut(key) else { return 0 };
        server.sockets.retain(is_open);
        server.sockets.len()
    }

    /// Asks for a notice when no connection of the server is open. Returns `true` if none is open
    /// now.
    pub(crate) fn closing(
        &mut self,
        key: &str,
        now: Instant,
        is_open: impl Fn(&S) -> bool,
    ) -> bool {
        if self.count(key, is_open) == 0 {
            self.servers.remove(key);
            return true;
        }
        if let Some(server) = self.servers.get_mut(key) {
            server.closing = Some((now + POLL_FIRST, POLL_FIRST));
        }
        false
    }

    /// Returns the servers whose last connection has closed since they asked for a notice.
    pub(crate) fn closed(&mut self, now: Instant, is_open: impl Fn(&S) -> bool) -> Vec<String> {
        let mut closed = Vec::new();
        for (key, server) in &mut self.servers {
            let Some((at, pause)) = server.closing else { continue };
            if at > now {
                continue;
            }
            server.sockets.retain(&is_open);
            if server.sockets.is_empty() {
                closed.push(key.clone());
            } else {
                let pause = (pause * 2).min(POLL_MAX);
                server.closing = Some((now + pause, pause));
            }
        }
        closed.iter().for_each(|key| drop(self.servers.remove(key)));
        closed
    }

    /// Returns the time of the next poll.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.servers.values().filter_map(|server| server.closing).map(|(at, _)| at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashSet;

    #[test]
    fn servers_whose_connections_are_closed_are_forgotten() {
        let mut connections = ServerConnections::new();
        connections.add("kept".to_owned(), 0, |_| true);
        for number in 1..10_000_u32 {
            connections.add(number.to_string(), number, |socket| *socket == 0);
            assert!(connections.servers.len() <= PRUNE_MIN, "{number}");
        }
        assert_eq!(connections.count("kept", |_| true), 1);
        assert!(connections.servers.capacity() <= 4 * PRUNE_MIN);
    }

    #[test]
    fn servers_with_open_connections_are_all_counted() {
        let mut connections = ServerConnections::new();
        for number in 0..1000_u32 {
            connections.add(number.to_string(), number, |_| true);
        }
        assert!((0..1000).all(|number| connections.count(&number.to_string(), |_| true) == 1));
    }

    #[test]
    fn a_server_with_an_overlong_name_is_not_counted() {
        let mut connections = ServerConnections::new();
        for (length, count) in [(KEY_BYTES_MAX, 1), (KEY_BYTES_MAX + 1, 0)] {
            let key = "k".repeat(length);
            connections.add(key.clone(), 0, |_| true);
            assert_eq!(connections.count(&key, |_| true), count);
        }
        assert!(connections.closing(&"k".repeat(KEY_BYTES_MAX + 1), Instant::now(), |_| true));
    }

    #[test]
    fn a_server_is_notified_once_when_its_last_connection_has_closed() {
        let open = RefCell::new(HashSet::from([1, 2, 3]));
        let is_open = |socket: &u32| open.borrow().contains(socket);
        let now = Instant::now();
        let mut connections = ServerConnections::new();
        for (key, socket) in [("a", 1), ("a", 2), ("b", 3)] {
            connections.add(key.to_owned(), socket, is_open);
        }
        assert_eq!((connections.count("a", is_open), connections.count("c", is_open)), (2, 0));
        open.borrow_mut().remove(&1);
        assert_eq!(connections.count("a", is_open), 1);
        assert!(connections.closing("c", now, is_open));
        assert!(!connections.closing("a", now, is_open));
        assert_eq!(connections.deadline(), Some(now + POLL_FIRST));
        assert!(connections.closed(now + POLL_FIRST, is_open).is_empty());
        assert_eq!(connections.deadline(), Some(now + 3 * POLL_FIRST));
        open.borrow_mut().remove(&2);
        assert!(connections.closed(now + 2 * POLL_FIRST, is_open).is_empty());
        assert_eq!(connections.closed(now + 3 * POLL_FIRST, is_open), ["a"]);
        assert_eq!(connections.deadline(), None);
        assert_eq!(connections.count("b", is_open), 1);
    }

    #[test]
    fn closed_connections_are_removed() {
        let mut connections = ServerConnections::new();
        for socket in 0..if cfg!(miri) { 300 } else { 10_000_u32 } {
            connections.add("a".into(), socket, |open| *open + 5 > socket);
        }
        assert!(connections.servers["a"].sockets.len() <= 16);
    }
}
