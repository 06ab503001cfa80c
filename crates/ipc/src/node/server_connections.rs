//! Connections that a Node server has given away and still counts.
//!
//! Node's `net.Server` counts the connections it has sent to other processes, and closes only when
//! they have: so it asks each of them how many are open, and to say when none is. A connection `S`
//! counts here for as long as whoever watches it says that it is open.
//!
//! Pure. Memory: connections that were given here and are still open, twice over at most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How soon a server that wants to close is told, and how this grows while it waits.
const POLL_FIRST: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(1);

/// The connections of every server.
#[derive(Debug)]
pub(crate) struct ServerConnections<S> {
    servers: HashMap<String, Server<S>>,
}

#[derive(Debug)]
struct Server<S> {
    sockets: Vec<S>,
    /// Above this many, those that have closed are forgotten.
    prune_at: usize,
    /// It wants to close: when to look next, and how long after that.
    closing: Option<(Instant, Duration)>,
}

impl<S> ServerConnections<S> {
    pub(crate) fn new() -> ServerConnections<S> {
        ServerConnections { servers: HashMap::new() }
    }

    /// A connection of the server `key` has come.
    pub(crate) fn add(&mut self, key: String, socket: S, is_open: impl Fn(&S) -> bool) {
        let new = Server { sockets: Vec::new(), prune_at: 16, closing: None };
        let server = self.servers.entry(key).or_insert(new);
        if server.sockets.len() >= server.prune_at {
            server.sockets.retain(&is_open);
            server.prune_at = (2 * server.sockets.len()).max(16);
        }
        server.sockets.push(socket);
    }

    /// How many connections of the server are open.
    pub(crate) fn count(&mut self, key: &str, is_open: impl Fn(&S) -> bool) -> usize {
        let Some(server) = self.servers.get_mut(key) else { return 0 };
        server.sockets.retain(is_open);
        server.sockets.len()
    }

    /// The server wants to know when none is open: true if that is now.
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

    /// Servers whose last connection has closed since they asked.
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

    /// When to look next.
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
    fn a_server_is_told_once_when_its_last_connection_has_closed() {
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
    fn connections_that_have_closed_are_forgotten() {
        let mut connections = ServerConnections::new();
        for socket in 0..if cfg!(miri) { 300 } else { 10_000_u32 } {
            connections.add("a".into(), socket, |open| *open + 5 > socket);
        }
        assert!(connections.servers["a"].sockets.len() <= 16);
    }
}
