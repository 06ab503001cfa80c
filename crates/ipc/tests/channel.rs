//! The blocking channel, as two programs use it.

use brood_ipc::{Blob, Channel, Error, Handle, Options};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::ChildStdin;
use std::time::Duration;

#[derive(serde::Serialize, serde::Deserialize)]
struct All {
    listener: Handle<TcpListener>,
    streams: Vec<Handle<TcpStream>>,
    udp: Option<Handle<UdpSocket>>,
    unix: Either,
    datagram: (u8, Handle<UnixDatagram>),
    file: Handle<File>,
    pipe: (Handle<ChildStdin>, Handle<File>),
    any: Handle<OwnedFd>,
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Either {
    Listener(Handle<UnixListener>),
    Stream { stream: Handle<UnixStream> },
}

#[test]
fn handles_of_every_kind_arrive_anywhere_in_a_message() {
    let folder = tempfile::tempdir().unwrap();
    for serialization in [
        brood_ipc::Serialization::Bincode,
        brood_ipc::Serialization::Json,
        brood_ipc::Serialization::Advanced,
    ] {
        let options = Options::new().serialization(serialization);
        let (a, b) = brood_ipc::channel_with::<All, ()>(&options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams = (0..2).map(|_| Handle::new(TcpStream::connect(address).unwrap())).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        let path = folder.path().join(serialization.name());
        let (read, write) = sys::pipe::pipe().unwrap();
        a.send(&All {
            listener: listener.into(),
            streams,
            udp: Some(UdpSocket::bind("127.0.0.1:0").unwrap().into()),
            unix: Either::Listener(UnixListener::bind(path).unwrap().into()),
            datagram: (1, UnixDatagram::unbound().unwrap().into()),
            file: file.into(),
            pipe: (Handle::new(write.into()), Handle::new(read.into())),
            any: Handle::new(UnixStream::pair().unwrap().0.into()),
        })
        .unwrap();
        let all = b.recv().unwrap();
        let listener = all.listener.into_inner();
        assert_eq!(listener.local_addr().unwrap(), address);
        assert_eq!(all.streams.len(), 2);
        for stream in all.streams {
            assert_eq!(stream.into_inner().peer_addr().unwrap(), address);
        }
        all.udp.unwrap().into_inner().local_addr().unwrap();
        assert!(matches!(all.unix, Either::Listener(_)));
        let mut text = String::new();
        all.file.into_inner().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        let (write, read) = all.pipe;
        write.into_inner().write_all(b" and more").unwrap();
        read.into_inner().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content and more");
    }
}

#[test]
fn a_handle_is_moved_and_only_a_clone_stays() {
    let (a, b) = brood_ipc::channel::<Handle<UnixStream>, ()>().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handle = Handle::new(theirs);
    let kept = handle.try_clone().unwrap();
    a.send(&handle).unwrap();
    drop(b.recv().unwrap());
    ours.set_nonblocking(true).unwrap();
    let still_open = (&ours).read(&mut [0]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
    a.send(&kept).unwrap();
    drop(b.recv().unwrap());
    assert_eq!((&ours).read(&mut [0]).unwrap(), 0, "no process has it any more");
}

#[test]
fn a_message_with_more_handles_than_the_kernel_carries_is_refused_and_keeps_them() {
    let (a, b) = brood_ipc::channel::<Vec<Handle<OwnedFd>>, ()>().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let handle = Handle::new(OwnedFd::from(socket));
    let many = |count: usize| (0..count).map(|_| handle.try_clone().unwrap()).collect::<Vec<_>>();
    a.send(&many(253)).unwrap();
    assert_eq!(b.recv().unwrap().len(), 253);
    let over = many(254);
    let failed = a.send(&over).unwrap_err();
    assert!(matches!(failed, Error::TooManyHandles { count: 254, max: 253 }));
    assert!(over.iter().all(|handle| !handle.is_sent()));
    a.send(&many(1)).unwrap();
    assert_eq!(b.recv().unwrap().len(), 1);
}

#[test]
fn a_failed_send_leaves_the_handles_in_the_value() {
    let (a, b) = brood_ipc::channel::<Handle<UdpSocket>, ()>().unwrap();
    drop(b);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let handle = Handle::new(udp);
    let failed = a.send(&handle).unwrap_err();
    assert!(matches!(failed, Error::Closed), "{failed:?}");
    assert_eq!(handle.into_inner().local_addr().unwrap(), address);
    assert!(!a.is_connected());
}

#[test]
fn a_message_over_the_limit_is_refused_before_anything_is_sent() {
    let options = Options::new().frame_bytes_max(1000);
    let (a, b) = brood_ipc::channel_with::<Vec<u8>, ()>(&options).unwrap();
    assert!(matches!(a.send(&vec![0; 993]).unwrap_err(), Error::TooLong { max: 1000 }));
    a.send(&vec![0; 992]).unwrap();
    assert_eq!(b.recv().unwrap().len(), 992);
}

#[test]
fn receiving_waits_polls_or_times_out() {
    let (a, b) = brood_ipc::channel::<u8, u8>().unwrap();
    assert!(b.try_recv().unwrap().is_none());
    assert!(b.recv_timeout(Duration::from_millis(10)).unwrap().is_none());
    a.feed(&1).unwrap();
    a.feed(&2).unwrap();
    assert!(b.try_recv().unwrap().is_none(), "what was fed waits for a flush");
    a.flush().unwrap();
    assert_eq!(b.recv_timeout(Duration::from_secs(20)).unwrap(), Some(1));
    assert_eq!(b.try_recv().unwrap(), Some(2));
    a.disconnect().unwrap();
    assert!(matches!(b.try_recv(), Err(Error::Closed)));
    assert!(matches!(a.send(&3).unwrap_err(), Error::Closed));
    b.send(&4).unwrap();
    assert_eq!(a.recv().unwrap(), 4, "the other direction stays open");
}

#[test]
fn a_receiver_that_waits_writes_fed_messages_first() {
    let (a, b) = brood_ipc::channel::<u8, u8>().unwrap();
    let peer = std::thread::spawn(move || b.send(&(b.recv().unwrap() + 1)).unwrap());
    a.feed(&6).unwrap();
    assert_eq!(a.recv().unwrap(), 7);
    peer.join().unwrap();
}

#[test]
fn large_messages_arrive_whole_in_both_directions_at_once() {
    let (a, b) = brood_ipc::channel::<Blob, Blob>().unwrap();
    let other = std::thread::spawn(move || {
        let (sender, receiver) = b.split();
        let writer = std::thread::spawn(move || {
            sender.send(&Blob::from(vec![2; 20_000_000])).unwrap();
        });
        let received = receiver.recv().unwrap();
        assert!(received.len() == 30_000_000 && received.iter().all(|byte| *byte == 1));
        writer.join().unwrap();
    });
    let (sender, receiver) = a.split();
    let writer = std::thread::spawn(move || {
        sender.send(&Blob::from(vec![1; 30_000_000])).unwrap();
    });
    let received = receiver.recv().unwrap();
    assert!(received.len() == 20_000_000 && received.iter().all(|byte| *byte == 2));
    writer.join().unwrap();
    other.join().unwrap();
}

#[test]
fn disconnect_writes_what_was_fed_first() {
    let (a, b) = brood_ipc::channel::<u32, ()>().unwrap();
    (0..1000).for_each(|number| a.feed(&number).unwrap());
    a.disconnect().unwrap();
    assert!(!a.is_connected());
    assert_eq!(b.iter().map(Result::unwrap).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_message_over_the_default_limit_is_refused_by_every_kind_of_endpoint() {
    let over = Blob::from(vec![0; brood_ipc::Options::FRAME_BYTES_MAX]);
    let (a, b) = brood_ipc::channel::<Blob, Blob>().unwrap();
    let failed = a.send(&over).unwrap_err();
    assert!(matches!(failed, Error::TooLong { max: brood_ipc::Options::FRAME_BYTES_MAX }));
    assert_eq!(
        over.len(),
        brood_ipc::Options::FRAME_BYTES_MAX,
        "the length in front makes it too long"
    );
    let (sender, _events) = b.into_events().unwrap();
    let failed = sender.send(&over).unwrap_err();
    assert!(matches!(failed, Error::TooLong { max: brood_ipc::Options::FRAME_BYTES_MAX }));
    sender.send(&Blob::from(vec![1])).unwrap();
    assert_eq!(a.recv().unwrap()[..], [1], "nothing of the message was sent");
}

#[test]
fn dropping_does_not_block_and_loses_nothing() {
    let (a, b) = brood_ipc::channel::<u32, ()>().unwrap();
    for number in 0..1000 {
        a.feed(&number).unwrap();
    }
    drop(a);
    assert_eq!(b.iter().map(Result::unwrap).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn undelivered_messages_are_reported_with_their_number() {
    let (a, b) = brood_ipc::channel::<Blob, ()>().unwrap();
    let mut accepted = 0;
    while accepted < 20 {
        a.try_send(&Blob::from(vec![0; 50_000])).unwrap();
        accepted += 1;
    }
    drop(b);
    match a.disconnect() {
        Err(Error::Undelivered(count)) => assert!((1..=20).contains(&count), "{count}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn try_send_fails_when_the_queue_is_full() {
    let (a, _b) = brood_ipc::channel::<Blob, ()>().unwrap();
    let failed = loop {
        if let Err(failed) = a.try_send(&Blob::from(vec![0; 100_000])) {
            break failed;
        }
    };
    assert!(matches!(failed, Error::Full));
    assert!(a.is_connected());
}

#[test]
fn a_receiver_with_a_timeout_is_not_held_up_by_a_peer_that_does_not_read() {
    let (a, b) = brood_ipc::channel::<Blob, u8>().unwrap();
    while a.try_send(&Blob::from(vec![0; 100_000])).is_ok() {}
    assert!(a.interest().is_writable());
    assert!(a.try_recv().unwrap().is_none());
    assert!(a.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
    assert!(a.prepare_wait());
    b.send(&1).unwrap();
    assert_eq!(a.recv_timeout(Duration::from_secs(20)).unwrap(), Some(1));
}

#[test]
fn a_thread_that_waits_to_receive_lets_others_send() {
    let (a, b) = brood_ipc::channel::<Blob, u8>().unwrap();
    while a.try_send(&Blob::from(vec![0; 100_000])).is_ok() {}
    std::thread::scope(|scope| {
        let (started, thread) = std::sync::mpsc::channel();
        let a = &a;
        let waits = scope.spawn(move || {
            started.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            a.recv_timeout(Duration::from_secs(20)).unwrap().unwrap()
        });
        let stat = std::path::Path::new("/proc").join(thread.recv().unwrap()).join("stat");
        let sleeps = || std::fs::read_to_string(&stat).unwrap().contains(") S ");
        while !sleeps() {
            assert!(!waits.is_finished(), "there is nothing to receive");
            std::thread::yield_now();
        }
        // The queue is full, which each call reports at once.
        for _ in 0..100 {
            let refused = a.try_send(&Blob::from(vec![0; 100_000])).unwrap_err();
            assert!(matches!(refused, Error::Full), "{refused:?}");
        }
        assert!(sleeps(), "nothing has arrived");
        b.send(&1).unwrap();
        assert_eq!(waits.join().unwrap(), 1);
    });
}

#[test]
fn a_message_can_be_received_undecoded_and_decoded_later() {
    let (a, b) = brood_ipc::channel::<(u8, Handle<UdpSocket>), ()>().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    a.send(&(3, udp.into())).unwrap();
    let message = b.recv_message().unwrap();
    assert_eq!(message.handle_count(), 1);
    let (number, udp) = message.decode::<(u8, Handle<UdpSocket>)>().unwrap();
    assert_eq!((number, udp.into_inner().local_addr().unwrap()), (3, address));
}

#[test]
fn a_mio_loop_is_woken_by_messages() {
    let (a, mut b) = brood_ipc::channel::<u8, ()>().unwrap();
    let mut poll = mio::Poll::new().unwrap();
    let mut events = mio::Events::with_capacity(4);
    poll.registry().register(&mut b, mio::Token(7), mio::Interest::READABLE).unwrap();
    a.send(&1).unwrap();
    a.send(&2).unwrap();
    poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
    assert_eq!(events.iter().next().unwrap().token(), mio::Token(7));
    let mut seen = Vec::new();
    while let Some(message) = b.try_recv().unwrap() {
        seen.push(message);
    }
    assert_eq!(seen, [1, 2]);
    poll.registry().deregister(&mut b).unwrap();
}

#[test]
fn a_descriptor_that_is_no_unix_stream_is_no_channel() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = Channel::<(), ()>::from_fd(udp, Options::new()).unwrap_err();
    assert!(matches!(refused, Error::NotAChannel(_)));
    let refused = Channel::<(), ()>::from_env("IPC_TEST_NOT_SET", Options::new()).unwrap_err();
    assert!(matches!(refused, Error::NotAChannel(_)));
}
