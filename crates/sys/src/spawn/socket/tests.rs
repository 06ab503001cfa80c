//! Sockets that children of other users open.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

use super::*;
use crate::fd::{Kind, kind};
use crate::socket::local_address;

const WITHIN: Duration = Duration::from_secs(10);
const NOBODY: u32 = 65_534;

fn nobody() -> Attributes {
    Attributes { uid: Some(NOBODY), gid: Some(NOBODY), ..Attributes::default() }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn order(address: SocketName<'_>) -> SocketOrder<'_> {
    let (datagram, reuse_address) = (false, false);
    let member = Member::None;
    SocketOrder { address, datagram, backlog: 16, reuse_address, member, mode: 0 }
}

fn ip(text: &str) -> SocketName<'static> {
    SocketName::Ip { address: text.parse().unwrap(), v6_only: false }
}

fn errno(order: &SocketOrder<'_>, attributes: &Attributes) -> Option<i32> {
    open_socket(order, attributes, WITHIN).unwrap_err().raw_os_error()
}

/// A folder that this user owns and others may enter.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, mode: u32, owner: u32) -> Self {
        let path = std::env::temp_dir().join(format!("brood-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn every_kind_of_socket_is_opened_by_a_child() {
    let own = Attributes::default();
    let name = format!("brood-child-{}", std::process::id()).into_bytes();
    let abstract_name = SocketName::Abstract(&name);
    for (address, datagram, expected) in [
        (ip("127.0.0.1:0"), false, Kind::TcpListener),
        (ip("127.0.0.1:0"), true, Kind::Udp),
        (abstract_name, false, Kind::UnixListener),
        (abstract_name, true, Kind::UnixDatagram),
    ] {
        let opened = open_socket(&SocketOrder { datagram, ..order(address) }, &own, WITHIN);
        let opened = opened.unwrap();
        assert_eq!(kind(opened.socket.as_fd()).unwrap(), expected);
        assert!(opened.folder.is_none());
        assert!(crate::fd::is_close_on_exec(opened.socket.as_fd()).unwrap());
    }
    let taken = open_socket(&order(ip("127.0.0.1:0")), &own, WITHIN).unwrap();
    let taken = local_address(taken.socket.as_fd()).map(|address| (taken, address)).unwrap();
    let again = SocketName::Ip { address: taken.1, v6_only: false };
    assert_eq!(errno(&order(again), &own), Some(libc::EADDRINUSE));
}

#[test]
fn the_kernel_asks_the_rights_of_the_child() {
    if !is_root() {
        return;
    }
    let closed = Folder::new("closed", 0o700, 0);
    let foreign = Folder::new("foreign", 0o755, 0);
    for folder in [&closed, &foreign] {
        let path = folder.0.join("s");
        assert_eq!(errno(&order(SocketName::Path(&path)), &nobody()), Some(libc::EACCES));
        drop(UnixListener::bind(&path).unwrap());
        let refused = errno(&order(SocketName::Path(&path)), &nobody());
        assert!(matches!(refused, Some(libc::EACCES | libc::EADDRINUSE)), "{refused:?}");
        assert!(path.exists(), "the stale file of another user stays");
        open_socket(&order(SocketName::Path(&path)), &Attributes::default(), WITHIN).unwrap();
    }
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if start.trim() == "1024" {
        assert_eq!(errno(&order(ip("127.0.0.1:23")), &nobody()), Some(libc::EACCES));
        assert_eq!(
            errno(&SocketOrder { datagram: true, ..order(ip("127.0.0.1:23")) }, &nobody()),
            Some(libc::EACCES)
        );
    }
}

#[test]
fn the_file_is_made_by_the_user_with_its_mode_and_a_stale_one_is_replaced() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("owned", 0o700, NOBODY);
    // Longer than the path of a socket may be.
    let deep = folder.0.join("x".repeat(120));
    fs::create_dir(&deep).unwrap();
    std::os::unix::fs::chown(&deep, Some(NOBODY), Some(NOBODY)).unwrap();
    let path = deep.join("s");
    for (mode, datagram) in [(0, false), (0o666, false), (0o222, true)] {
        let order = SocketOrder { mode, datagram, ..order(SocketName::Path(&path)) };
        let opened = open_socket(&order, &nobody(), WITHIN).unwrap();
        let about = fs::symlink_metadata(&path).unwrap();
        assert_eq!((about.uid(), about.mode() & mode), (NOBODY, mode));
        let found = crate::fd::inode(opened.folder.unwrap().as_fd()).unwrap();
        assert_eq!(found, fs::metadata(&deep).unwrap().ino());
        assert_eq!(errno(&order, &nobody()), Some(libc::EADDRINUSE), "it is in use");
    }
    let opened = fs::File::open(&deep).unwrap();
    let near = format!("/proc/self/fd/{}/s", opened.as_raw_fd());
    assert!(UnixDatagram::unbound().unwrap().connect(&near).is_err(), "nothing is bound by now");
    assert!(UnixStream::connect(&near).is_err());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    assert_eq!(errno(&order(SocketName::Path(&path)), &nobody()), Some(libc::EADDRINUSE));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let relative = SocketName::Path(Path::new("/"));
    assert_eq!(errno(&order(relative), &nobody()), Some(libc::EINVAL));
}

#[test]
fn a_group_of_one_port_belongs_to_one_user() {
    if !is_root() {
        return;
    }
    let member = |member, address| SocketOrder { member, ..order(address) };
    let first = member(Member::First, ip("127.0.0.1:0"));
    let first = open_socket(&first, &nobody(), WITHIN).unwrap().socket;
    let address = local_address(first.as_fd()).unwrap();
    let at = SocketName::Ip { address, v6_only: false };
    let next = member(Member::Next, at);
    open_socket(&next, &nobody(), WITHIN).unwrap();
    let other = Attributes { uid: Some(NOBODY - 1), ..nobody() };
    assert_eq!(errno(&next, &other), Some(libc::EADDRINUSE));
    assert_eq!(errno(&member(Member::First, at), &nobody()), Some(libc::EADDRINUSE));
}
