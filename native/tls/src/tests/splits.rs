//! However the bytes are cut, the same comes of them.

use proptest::prelude::*;
use tidegate_model::tls::TlsVersion;

use super::pki::Pki;
use super::{Pair, client_context, common, deliver, downstream, server_context, upstream};

/// Delivers in pieces of the given sizes, in turn.
fn in_pieces(
    session: &mut crate::Session,
    bytes: &[u8],
    sizes: &[usize],
    out: &mut Vec<u8>,
) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*size).clamp(1, rest.len()));
        rest = behind;
        plain.extend(deliver(session, &mut piece.to_vec(), out).unwrap());
    }
    plain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_gives_the_same(
        sizes in prop::collection::vec(1_usize..3000, 1..8),
        writes in prop::collection::vec(0_usize..40_000, 1..5),
        tls13: bool,
        mutual: bool,
    ) {
        let pki = Pki::new();
        let trust = mutual.then(|| pki.trust());
        let server = server_context(downstream(common(vec![pki.server()], trust)));
        let mut theirs = common(vec![pki.client()], Some(pki.trust()));
        theirs.params.max_version = Some(if tls13 { TlsVersion::V1_3 } else { TlsVersion::V1_2 });
        let client = client_context(upstream(theirs, "server.test"));
        let mut pair = Pair::new(&client, &server);
        let mut wanted = Vec::new();
        let mut got = Vec::new();
        let mut sent = false;
        // The client's data goes with its last flight, as fast as it may.
        for _ in 0..8 {
            let bytes = std::mem::take(&mut pair.to_server);
            got.extend(in_pieces(&mut pair.server, &bytes, &sizes, &mut pair.to_client));
            let bytes = std::mem::take(&mut pair.to_client);
            let none = in_pieces(&mut pair.client, &bytes, &sizes, &mut pair.to_server);
            prop_assert!(none.is_empty());
            if !pair.client.is_handshaking() && !sent {
                sent = true;
                for (index, size) in writes.iter().enumerate() {
                    let data: Vec<u8> = (0..*size).map(|at| (at * 31 + index) as u8).collect();
                    let (first, second) = data.split_at(size / 3);
                    pair.client.send(&[first, second], &mut pair.to_server).unwrap();
                    wanted.extend(data);
                }
            }
        }
        prop_assert!(sent && !pair.server.is_handshaking());
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(pair.server.held(), 0);
        prop_assert_eq!(pair.server.info().unwrap().peer.is_some(), mutual);
    }
}
