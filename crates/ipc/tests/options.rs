//! Every option and deadline at its ends: taken, or refused where it is set.

use brood_ipc::internal::start_node;
use brood_ipc::{Channel, ChannelHandle, Error, Link, LinkEvent, Options, Serialization};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

/// Options with one option at an end of its range, each with its name.
fn ends() -> Vec<(String, Options)> {
    type Setter = fn(Options, usize) -> Options;
    let sizes: [(&str, Setter); 7] = [
        ("frame_bytes_max", Options::frame_bytes_max),
        ("handles_max", Options::handles_max),
        ("queued_bytes_max", Options::queued_bytes_max),
        ("high_water_bytes", Options::high_water_bytes),
        ("unread_bytes_max", Options::unread_bytes_max),
        ("unread_handles_max", Options::unread_handles_max),
        ("handles_in_flight_max", Options::handles_in_flight_max),
    ];
    let values = [0, 1, u32::MAX as usize, usize::MAX - 1, usize::MAX];
    let mut all: Vec<_> = sizes
        .iter()
        .flat_map(|(name, set)| {
            values.map(|value| (format!("{name}({value})"), set(Options::new(), value)))
        })
        .collect();
    for value in values {
        all.push((format!("mapped_bytes_max({value})"), Options::new().mapped_bytes_max(value)));
    }
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        all.push((format!("exit_flush({time:?})"), Options::new().exit_flush(time)));
    }
    let tag = "t".repeat(Options::TAG_BYTES_MAX);
    all.push(("tag".to_owned(), Options::new().tag(tag)));
    all
}

/// Returns whether a limit of these options forbids a message of a few bytes.
fn forbids_messages(name: &str) -> bool {
    ["frame_bytes_max(0)", "frame_bytes_max(1)"].contains(&name)
}

#[test]
fn blocking_channels_take_every_option_at_its_ends() {
    for (name, options) in ends() {
        for serialization in [Serialization::Bincode, Serialization::Json, Serialization::Advanced]
        {
            let options = options.clone().serialization(serialization);
            let (a, b) = brood_ipc::channel_with::<String, String>(&options).unwrap();
            let text = "some text".to_owned();
            match a.send(&text) {
                Ok(()) => assert_eq!(b.recv().unwrap(), text, "{name}"),
                Err(Error::TooLong { .. }) => assert!(forbids_messages(&name), "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
            match b.try_send(&text) {
                Ok(()) => assert_eq!(a.recv().unwrap(), text, "{name}"),
                Err(Error::TooLong { .. }) => assert!(forbids_messages(&name), "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
    }
}

#[test]
fn channels_on_the_loop_take_every_option_at_its_ends() {
    for (name, options) in ends() {
        let (a, b) = brood_ipc::channel_with::<String, String>(&options).unwrap();
        let (sender, events) = crossbeam_channel::unbounded();
        let link = a.into_link(move |event| drop(sender.send(event))).unwrap();
        for text in ["one", "two", "three"] {
            match link.send(text) {
                Ok(_) => assert_eq!(b.recv().unwrap(), text, "{name}"),
                Err(Error::TooLong { .. }) => assert!(forbids_messages(&name), "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
            if b.send(&text.to_owned()).is_err() {
                assert!(forbids_messages(&name), "{name}");
                continue;
            }
            match events.recv_timeout(LONG).expect(&name) {
                LinkEvent::Message(message) => {
                    assert_eq!(message.decode::<String>().unwrap(), text, "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn channels_to_node_take_every_option_at_its_ends() {
    for (name, options) in ends() {
        let (a, b) = UnixStream::pair().unwrap();
        let (sender, events) = crossbeam_channel::unbounded();
        let options = options.serialization(Serialization::Json);
        let link = start_node(a.into(), options, move |event| drop(sender.send(event))).unwrap();
        link.resume();
        let mut peer = BufReader::new(b);
        for text in ["one", "two"] {
            match link.send(text) {
                Ok(_) => {
                    let mut line = String::new();
                    peer.read_line(&mut line).unwrap();
                    assert_eq!(line, format!("{text:?}\n"), "{name}");
                }
                Err(Error::TooLong { .. }) => assert!(forbids_messages(&name), "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
            peer.get_mut().write_all(b"7\n").unwrap();
            let event = events.recv_timeout(LONG).expect(&name);
            let arrived = matches!(event, brood_ipc::internal::Event::Message(_));
            assert!(arrived || name == "frame_bytes_max(0)", "{name}: {event:?}");
        }
    }
}

#[test]
fn a_wait_of_any_length_is_that_long() {
    let (a, b) = brood_ipc::channel::<u8, ()>().unwrap();
    assert_eq!(b.recv_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(b.recv_timeout(Duration::from_nanos(1)).unwrap(), None);
    for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(1 << 62)]
    {
        let waits = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| b.recv_timeout(timeout).unwrap());
            // The other thread waits by then, or finds the message when it begins to.
            let _ = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(20));
            a.send(&7).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(waits, Some(7), "{timeout:?}");
    }
}

#[test]
fn a_tag_that_no_peer_would_take_is_refused_where_it_is_set() {
    let long = Options::new().tag("t".repeat(Options::TAG_BYTES_MAX + 1));
    let refused = brood_ipc::channel_with::<(), ()>(&long).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(refused.to_string(), "invalid option: the tag is longer than 256 bytes");
    let socket = || UnixStream::pair().unwrap().0;
    let is_refused = |error: Error| {
        assert!(matches!(error, Error::InvalidOption(_)), "{error:?}");
        assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
    };
    is_refused(Channel::<(), ()>::from_fd(socket(), long.clone()).unwrap_err());
    is_refused(Channel::<(), ()>::from_env("NOWHERE", long.clone()).unwrap_err());
    is_refused(Link::start(socket(), long.clone(), |_| {}).unwrap_err());
    is_refused(Link::start_paused(socket(), long.clone(), |_| {}).unwrap_err());
    let node = long.clone().serialization(Serialization::Json);
    is_refused(start_node(socket().into(), node, |_| {}).unwrap_err());
}

#[test]
fn a_number_that_no_descriptor_has_is_refused() {
    let handle = || -> ChannelHandle<(), ()> {
        brood_ipc::channel::<(), ()>().unwrap().0.into_handle().unwrap()
    };
    assert!(handle().into_env(u32::MAX).is_err());
    assert!(handle().into_env(1 << 31).is_err());
    let (_socket, text) = handle().into_env((1 << 31) - 1).unwrap();
    assert!(text.starts_with("2147483647:"));
}
