//! The rules that say which worker may listen where.
//!
//! [`decide`] answers one request: the primary opens the socket, the kernel decides by the worker's
//! own rights, a function of the user is asked, or the request is refused.
//!
//! Pure.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::protocol::address::Address;

/// The answer to the request of a worker to listen on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenPermission {
    /// The primary opens the socket, with its own rights.
    Granted,
    /// The kernel decides by the user and the groups of the worker: a child of the primary that has
    /// them opens the socket. For a worker without a user or group of its own the primary does.
    OwnRights,
    /// The worker gets `EACCES`.
    Refused,
}

/// The addresses on which workers may listen, whatever the rights of the workers are.
///
/// [`Builder::may_listen`](crate::Builder::may_listen) takes the list. The primary opens the
/// sockets, so a worker without any privilege can have port 80. The order of the rules has no
/// meaning. Sockets that a worker opens by itself
/// ([`exclusive`](crate::ListenOptions::exclusive)) are the kernel's matter and not the list's.
///
/// ```
/// use brood_cluster::{ListenRules, Primary, WorkerOptions};
/// use std::net::SocketAddr;
///
/// let rules = ListenRules::new()
///     .address(SocketAddr::from(([0, 0, 0, 0], 80)))
///     .ports(8000..=8099)
///     .folder("/run/app")
///     .abstract_name("app");
/// let worker = WorkerOptions::new().uid(65534).gid(65534);
/// let primary = Primary::builder().worker(worker).may_listen(rules).build()?;
/// # Ok::<(), brood_cluster::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "rules change nothing until a builder gets them"]
pub struct ListenRules {
    rules: Vec<Rule>,
    otherwise: Option<ListenPermission>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Address(Address),
    Ports(RangeInclusive<u16>),
    Folder(PathBuf),
    AbstractName(Vec<u8>),
    Inherited(String),
    Descriptor(i32),
}

impl ListenRules {
    /// Creates a list without rules, which allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows one address: of TCP or UDP with its host and port, the absolute path of a Unix socket,
    /// an abstract name, or an inherited socket.
    ///
    /// Whether the socket accepts IPv4 connections as well makes no difference. A host that means
    /// every address, `0.0.0.0` or `::`, allows a request for just that host.
    pub fn address(self, address: impl Into<Address>) -> Self {
        self.with(Rule::Address(address.into()))
    }

    /// Allows these ports of TCP and UDP on every host. Port 0, for which the kernel chooses a port,
    /// is allowed when it lies in the range.
    pub fn ports(self, ports: RangeInclusive<u16>) -> Self {
        self.with(Rule::Ports(ports))
    }

    /// Allows Unix sockets with a path directly in this folder, for streams and for datagrams. Folders
    /// inside of it are not allowed. `folder` is an absolute path, compared as text.
    ///
    /// A socket file that a dead process of any user has left there is replaced.
    pub fn folder(self, folder: impl AsRef<Path>) -> Self {
        self.with(Rule::Folder(folder.as_ref().to_owned()))
    }

    /// Allows one name in the abstract namespace, without the leading zero, for streams and for
    /// datagrams.
    pub fn abstract_name(self, name: impl AsRef<[u8]>) -> Self {
        self.with(Rule::AbstractName(name.as_ref().to_owned()))
    }

    /// Allows the socket that the primary inherited under this name, by
    /// [`Builder::socket`](crate::Builder::socket) or from systemd.
    pub fn inherited(self, name: impl Into<String>) -> Self {
        self.with(Rule::Inherited(name.into()))
    }

    /// Allows the socket with this descriptor number, with which the primary was started: Node's
    /// `listen({ fd })`.
    pub fn descriptor(self, number: i32) -> Self {
        self.with(Rule::Descriptor(number))
    }

    /// Sets the answer to requests that no rule allows.
    ///
    /// By default these are refused, with one exception: for a worker with a user or group of its
    /// own the kernel decides, by [`ListenPermission::OwnRights`].
    pub fn otherwise(mut self, permission: ListenPermission) -> Self {
        self.otherwise = Some(permission);
        self
    }

    fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    fn allow(&self, address: &Address, facts: &ListenFacts) -> bool {
        self.rules.iter().any(|rule| rule.allows(address, facts))
    }
}

/// The user and groups that a worker was started with, where they are not those of the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The supplementary groups; with `None` there are none.
    pub(crate) groups: Option<Vec<u32>>,
}

/// An inherited socket at the requested address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenSocket {
    /// `None` for a socket that was found by its number.
    pub(crate) name: Option<String>,
    pub(crate) number: i32,
}

/// The facts about a request to listen that only the driver knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenFacts {
    /// The rights of the worker, if the worker has rights of its own.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) given: Option<GivenSocket>,
    /// The absolute path that the address names.
    pub(crate) path: Option<PathBuf>,
}

/// The decision about a request to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The answer is this.
    Permission(ListenPermission),
    /// The function of the user is asked.
    Ask,
}

/// Decides about a request to listen. `asks` says whether the user has set a function.
pub(crate) fn decide(
    rules: Option<&ListenRules>,
    asks: bool,
    address: &Address,
    facts: &ListenFacts,
) -> Decision {
    use ListenPermission as P;
    let decided = |permission| Decision::Permission(within(permission, facts));
    // A name that the primary does not know opens nothing; the bind reports that.
    let is_unknown = matches!(address, Address::Inherited(_));
    if is_unknown || rules.is_some_and(|rules| rules.allow(address, facts)) {
        return decided(P::Granted);
    }
    if rules.is_none() && !asks && facts.given.as_ref().is_some_and(|it| it.name.is_some()) {
        // The user, or systemd for this service, has passed the socket to the primary for workers.
        return decided(P::Granted);
    }
    match rules.and_then(|rules| rules.otherwise) {
        _ if asks => Decision::Ask,
        Some(otherwise) => decided(otherwise),
        None if rules.is_none() || facts.credentials.is_some() => decided(P::OwnRights),
        None => decided(P::Refused),
    }
}

/// Returns the permission as it applies to the request: a socket that exists already cannot be
/// opened by the worker's rights.
pub(crate) fn within(permission: ListenPermission, facts: &ListenFacts) -> ListenPermission {
    use ListenPermission as P;
    match permission {
        P::OwnRights if facts.credentials.is_none() => P::Granted,
        P::OwnRights if facts.given.is_some() => P::Refused,
        P::Granted | P::OwnRights | P::Refused => permission,
    }
}

/// Whether a worker may name a descriptor of the primary that is no inherited socket.
pub(crate) fn may_name_descriptor(
    rules: Option<&ListenRules>,
    credentials: Option<&Credentials>,
    number: i32,
) -> bool {
    let named = |rules: &ListenRules| rules.rules.contains(&Rule::Descriptor(number));
    credentials.is_none() || rules.is_some_and(named)
}

impl Rule {
    fn allows(&self, address: &Address, facts: &ListenFacts) -> bool {
        match self {
            Self::Address(allowed) => is_same(allowed, address, facts),
            Self::Ports(ports) => match address {
                Address::Tcp { address, .. } | Address::Udp { address, .. } => {
                    ports.contains(&address.port())
                }
                Address::UnixPath(_)
                | Address::UnixAbstract(_)
                | Address::DatagramPath(_)
                | Address::DatagramAbstract(_)
                | Address::Inherited(_) => false,
            },
            Self::Folder(folder) => facts.path.as_deref().is_some_and(|path| {
                path.file_name().is_some() && path.parent() == Some(folder.as_path())
            }),
            Self::AbstractName(allowed) => match address {
                Address::UnixAbstract(name) | Address::DatagramAbstract(name) => name == allowed,
                Address::Tcp { .. }
                | Address::Udp { .. }
                | Address::UnixPath(_)
                | Address::DatagramPath(_)
                | Address::Inherited(_) => false,
            },
            Self::Inherited(allowed) => {
                facts.given.as_ref().is_some_and(|it| it.name.as_ref() == Some(allowed))
            }
            Self::Descriptor(number) => facts.given.as_ref().is_some_and(|it| it.number == *number),
        }
    }
}

fn is_same(allowed: &Address, address: &Address, facts: &ListenFacts) -> bool {
    match (allowed, address) {
        (Address::Tcp { address: one, .. }, Address::Tcp { address: two, .. })
        | (Address::Udp { address: one, .. }, Address::Udp { address: two, .. }) => one == two,
        (Address::UnixPath(one), Address::UnixPath(_))
        | (Address::DatagramPath(one), Address::DatagramPath(_)) => {
            facts.path.as_ref() == Some(one)
        }
        (Address::Inherited(name), _) => {
            facts.given.as_ref().is_some_and(|it| it.name.as_ref() == Some(name))
        }
        (one, two) => one == two,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use ListenPermission as P;

    fn tcp(text: &str) -> Address {
        Address::from(text.parse::<SocketAddr>().unwrap())
    }

    fn udp(text: &str) -> Address {
        Address::Udp { address: text.parse().unwrap(), v6_only: false }
    }

    fn at_path(path: &str) -> ListenFacts {
        ListenFacts { path: Some(path.into()), ..ListenFacts::default() }
    }

    fn given(name: Option<&str>, number: i32) -> ListenFacts {
        let given = GivenSocket { name: name.map(str::to_owned), number };
        ListenFacts { given: Some(given), ..ListenFacts::default() }
    }

    fn of_another_user(facts: ListenFacts) -> ListenFacts {
        let credentials = Credentials { uid: Some(65_534), gid: None, groups: None };
        ListenFacts { credentials: Some(credentials), ..facts }
    }

    fn rules() -> ListenRules {
        ListenRules::new()
            .address("127.0.0.1:80".parse::<SocketAddr>().unwrap())
            .address(Path::new("/run/one.sock"))
            .ports(8000..=8010)
            .folder("/run/app")
            .abstract_name("name")
            .inherited("web")
            .descriptor(9)
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let path = |text: &str| (Address::UnixPath(text.into()), at_path(text));
        let datagram = |text: &str| (Address::DatagramPath(text.into()), at_path(text));
        let plain = |address| (address, ListenFacts::default());
        let v6_only = Address::Tcp { address: "[::1]:8001".parse().unwrap(), v6_only: true };
        for ((address, facts), allowed) in [
            (plain(tcp("127.0.0.1:80")), true),
            (plain(tcp("0.0.0.0:80")), false),
            (plain(udp("127.0.0.1:80")), false),
            (plain(tcp("127.0.0.1:81")), false),
            (plain(tcp("127.0.0.1:0")), false),
            (plain(tcp("10.0.0.1:8000")), true),
            (plain(udp("10.0.0.1:8010")), true),
            (plain(v6_only), true),
            (plain(tcp("10.0.0.1:8011")), false),
            (plain(tcp("10.0.0.1:7999")), false),
            (path("/run/one.sock"), true),
            (datagram("/run/one.sock"), false),
            (path("/run/app/a"), true),
            (datagram("/run/app/a"), true),
            (path("/run/app/./a"), true),
            (path("/run/app/b/a"), false),
            (path("/run/app/../other"), false),
            (path("/run/app/.."), false),
            (path("/run/app"), false),
            (path("/run/apple"), false),
            (plain(Address::UnixPath("/run/app/a".into())), false),
            (plain(Address::UnixAbstract(b"name".to_vec())), true),
            (plain(Address::DatagramAbstract(b"name".to_vec())), true),
            (plain(Address::UnixAbstract(b"name2".to_vec())), false),
            ((tcp("10.0.0.1:1"), given(Some("web"), 5)), true),
            ((tcp("10.0.0.1:1"), given(Some("api"), 5)), false),
            ((tcp("10.0.0.1:1"), given(None, 9)), true),
            ((tcp("10.0.0.1:1"), given(None, 8)), false),
        ] {
            let expected = if allowed { P::Granted } else { P::Refused };
            let decision = decide(Some(&rules()), false, &address, &facts);
            assert_eq!(decision, Decision::Permission(expected), "{address} {facts:?}");
        }
    }

    #[test]
    fn without_a_rule_the_rights_of_the_worker_decide() {
        let own = |facts| (tcp("127.0.0.1:23"), facts);
        let nobody = || of_another_user(ListenFacts::default());
        let empty = ListenRules::new();
        let strict = ListenRules::new().otherwise(P::Refused);
        let open = ListenRules::new().otherwise(P::Granted);
        let same = ListenRules::new().otherwise(P::OwnRights);
        let web = || given(Some("web"), 5);
        for (rules, (address, facts), permission) in [
            (None, own(ListenFacts::default()), P::Granted),
            (None, own(nobody()), P::OwnRights),
            (Some(&empty), own(ListenFacts::default()), P::Refused),
            (Some(&empty), own(nobody()), P::OwnRights),
            (Some(&strict), own(nobody()), P::Refused),
            (Some(&open), own(nobody()), P::Granted),
            (Some(&same), own(ListenFacts::default()), P::Granted),
            // Sockets that were passed to the primary.
            (None, own(web()), P::Granted),
            (None, own(of_another_user(web())), P::Granted),
            (None, own(given(None, 9)), P::Granted),
            (None, own(of_another_user(given(None, 9))), P::Refused),
            (Some(&empty), own(web()), P::Refused),
            (Some(&empty), own(of_another_user(web())), P::Refused),
            // The bind reports that there is none of this name.
            (Some(&strict), (Address::Inherited("none".into()), nobody()), P::Granted),
        ] {
            let decision = decide(rules, false, &address, &facts);
            assert_eq!(decision, Decision::Permission(permission), "{rules:?} {facts:?}");
        }
    }

    #[test]
    fn a_function_is_asked_about_everything_that_no_rule_allows() {
        let facts = || of_another_user(ListenFacts::default());
        for rules in [None, Some(ListenRules::new().otherwise(P::Refused))] {
            let decision = decide(rules.as_ref(), true, &tcp("127.0.0.1:23"), &facts());
            assert_eq!(decision, Decision::Ask);
            let decision = decide(rules.as_ref(), true, &tcp("1.1.1.1:1"), &given(Some("w"), 5));
            assert_eq!(decision, Decision::Ask);
        }
        let decision = decide(Some(&rules()), true, &tcp("127.0.0.1:80"), &facts());
        assert_eq!(decision, Decision::Permission(P::Granted));
        let given = of_another_user(given(Some("web"), 5));
        assert_eq!(within(P::OwnRights, &given), P::Refused, "the socket is open already");
        assert_eq!(within(P::OwnRights, &facts()), P::OwnRights);
        assert_eq!(within(P::OwnRights, &ListenFacts::default()), P::Granted);
    }

    #[test]
    fn a_worker_of_another_user_names_only_descriptors_of_the_list() {
        let nobody = Credentials { uid: Some(65_534), gid: None, groups: None };
        let empty = ListenRules::new();
        for (rules, credentials, number, may) in [
            (None, None, 9, true),
            (Some(&empty), None, 9, true),
            (None, Some(&nobody), 9, false),
            (Some(&empty), Some(&nobody), 9, false),
            (Some(&rules()), Some(&nobody), 9, true),
            (Some(&rules()), Some(&nobody), 8, false),
        ] {
            assert_eq!(may_name_descriptor(rules, credentials, number), may);
        }
    }
}
