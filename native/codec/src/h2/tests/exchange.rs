//! Whole exchanges between a client and a server of ours.

use super::*;
use crate::h1::KnownHeader;

pub(super) const GET: RequestLine<'static> = RequestLine {
    method: b"GET",
    scheme: b"http",
    authority: b"reviews:9080",
    path: b"/reviews/0",
    protocol: None,
};

#[test]
fn request_response_trailers() {
    let (mut client, mut server) = (Side::client(), Side::server());
    let (at_client, at_server) = pump(&mut client, &mut server);
    assert_eq!(at_client, [Seen::Settings]);
    assert_eq!(at_server, [Seen::Settings]);
    for round in 0..3u32 {
        let fields = [
            OutField::known(KnownHeader::UserAgent, b"curl/8"),
            OutField::named(b"x-own", b"v"),
            OutField {
                sensitive: true,
                ..OutField::named(b"x-secret", b"s")
            },
        ];
        let stream = client
            .conn
            .start_request(7, &GET, fields, false, 0)
            .unwrap();
        assert_eq!(client.conn.send_data(stream, b"hello", false), Ok(5));
        let trailer = [OutField::named(b"x-end", b"1")];
        assert_eq!(client.conn.send_trailers(stream, trailer), Ok(()));
        let (_, seen) = pump(&mut client, &mut server);
        let id = 1 + 2 * round;
        assert_eq!(stream.id(), id);
        let head = [
            "GET http://reviews:9080/reviews/0",
            "user-agent: curl/8",
            "x-own: v",
            "x-secret: s",
        ];
        assert_eq!(
            seen,
            [
                Seen::Request(id, head.map(String::from).to_vec(), false),
                Seen::Data(id, b"hello".to_vec(), false),
                Seen::Trailers(id, vec!["x-end: 1".to_string()]),
            ]
        );
        let incoming = server.last.unwrap();
        server.conn.set_token(incoming, 9);
        server
            .conn
            .send_response(incoming, 103, [OutField::named(b"link", b"<x>")], false)
            .unwrap();
        server
            .conn
            .send_response(incoming, 200, [OutField::named(b"server", b"t")], false)
            .unwrap();
        assert_eq!(server.conn.send_data(incoming, b"world", false), Ok(5));
        assert_eq!(
            server
                .conn
                .send_trailers(incoming, [OutField::named(b"grpc-status", b"0")]),
            Ok(())
        );
        assert_eq!(server.conn.active_streams(), 0);
        let (seen, _) = pump(&mut client, &mut server);
        assert_eq!(
            seen,
            [
                Seen::Response(id, 103, vec!["link: <x>".to_string()], false),
                Seen::Response(id, 200, vec!["server: t".to_string()], false),
                Seen::Data(id, b"world".to_vec(), false),
                Seen::Trailers(id, vec!["grpc-status: 0".to_string()]),
            ]
        );
        assert_eq!(client.conn.active_streams(), 0);
    }
}
