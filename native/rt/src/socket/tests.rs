use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::{Poller, Token};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

const TOKEN: Token = Token {
    index: 1,
    generation: 1,
    side: 0,
};

#[test]
fn accepts_and_exchanges_bytes_in_one_vectored_write() {
    let listening = Listening::bind(loopback(), &ListenOptions::default()).unwrap();
    assert_eq!(listening.accept().unwrap_err(), Errno::AGAIN);
    let mut client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let accepted = listening.accept().unwrap();
    assert_eq!(accepted.remote, client.local_addr().unwrap());
    let sent = accepted
        .socket
        .send_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"body")]);
    assert_eq!(sent, Sent::Bytes(9));
    let mut got = [0; 9];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head body");

    let mut into = [0; 16];
    assert_eq!(accepted.socket.recv(&mut into), Received::WouldBlock);
    client.write_all(b"abc").unwrap();
    let mut poller = Poller::new(8).unwrap();
    poller.add(&accepted.socket, TOKEN).unwrap();
    assert_eq!(poller.wait(Some(Duration::from_secs(5))).unwrap(), 1);
    let (token, ready) = poller.event(0).unwrap();
    assert_eq!(token, TOKEN);
    assert!(ready.readable() && ready.writable() && !ready.read_closed());
    assert_eq!(accepted.socket.recv(&mut into), Received::Data(3));
    drop(client);
    assert_eq!(poller.wait(Some(Duration::from_secs(5))).unwrap(), 1);
    assert!(poller.event(0).unwrap().1.read_closed());
    assert_eq!(accepted.socket.recv(&mut into), Received::Eof);
}

#[test]
fn a_refused_connect_is_told_by_the_pending_error() {
    let closed = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    match Socket::connect(closed, &ConnectOptions::default()) {
        Err(error) => assert_eq!(error.errno, Errno::CONNREFUSED),
        Ok((socket, connected)) => {
            assert!(!connected);
            let mut poller = Poller::new(8).unwrap();
            poller.add(&socket, TOKEN).unwrap();
            poller.wait(Some(Duration::from_secs(5))).unwrap();
            assert!(poller.event(0).unwrap().1.hung_up());
            assert_eq!(socket.take_error(), Some(Errno::CONNREFUSED));
        }
    }
}

#[test]
fn reset_on_close_is_seen_as_a_reset() {
    let listening = Listening::bind(loopback(), &ListenOptions::default()).unwrap();
    let mut client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let accepted = listening.accept().unwrap();
    accepted.socket.reset_on_close().unwrap();
    drop(accepted);
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn workers_share_an_address_with_reuse_port() {
    let first = Listening::bind(loopback(), &ListenOptions::default()).unwrap();
    let address = first.local_addr().unwrap();
    Listening::bind(address, &ListenOptions::default()).unwrap();
    let exclusive = ListenOptions {
        reuse_port: false,
        ..ListenOptions::default()
    };
    assert_eq!(
        Listening::bind(address, &exclusive).unwrap_err(),
        Errno::ADDRINUSE
    );
}

#[test]
fn writing_to_a_closed_peer_is_an_error_and_no_signal() {
    let listening = Listening::bind(loopback(), &ListenOptions::default()).unwrap();
    let client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let accepted = listening.accept().unwrap();
    drop(client);
    for _ in 0..50 {
        match accepted.socket.send(b"x") {
            Sent::Error(error) => {
                assert!(matches!(error, Errno::PIPE | Errno::CONNRESET));
                return;
            }
            _ => std::thread::yield_now(),
        }
    }
    panic!("no error");
}
