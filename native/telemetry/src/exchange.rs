//! The first bytes of a TCP connection between two proxies that agreed on `istio-peer-exchange`.
//!
//! Eight bytes (magic number, length; network order), then a `google.protobuf.Any` of a `Struct` that holds what the HTTP
//! headers would say: `x-envoy-peer-metadata` (a struct) and `x-envoy-peer-metadata-id`.

use prost::Message as _;
use prost_types::{Any, Struct, Value, value::Kind};

use crate::peer::{Peer, text};

/// The ALPN protocol that announces it.
pub const PROTOCOL: &str = "istio-peer-exchange";

const MAGIC: u32 = 0x3D23_0467;
const HEADER: usize = 8;
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
const METADATA: &str = "x-envoy-peer-metadata";
const METADATA_ID: &str = "x-envoy-peer-metadata-id";

/// What a proxy sends of itself.
pub fn greeting(own: &Peer, node_id: &str) -> Vec<u8> {
    let mut data = Struct::default();
    let metadata = Value {
        kind: Some(Kind::StructValue(own.to_struct())),
    };
    data.fields.insert(METADATA.to_owned(), metadata);
    if !node_id.is_empty() {
        data.fields.insert(METADATA_ID.to_owned(), text(node_id));
    }
    let any = Any {
        type_url: STRUCT_URL.to_owned(),
        value: data.encode_to_vec(),
    }
    .encode_to_vec();
    let mut out = Vec::with_capacity(HEADER + any.len());
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&(any.len() as u32).to_be_bytes());
    out.extend_from_slice(&any);
    out
}

/// What the first bytes from a peer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Fewer than the eight bytes of the header.
    NeedHeader,
    /// The header is there, not all of what it announces.
    NeedData,
    /// No magic number: the peer does not speak this.
    NoHeader,
    /// The header, but no message behind it. The header is not part of the traffic.
    Malformed,
    /// So many bytes; a peer may tell nothing.
    Peer(usize, Option<Box<Peer>>),
}

/// The length of the header alone.
pub const HEADER_LENGTH: usize = HEADER;

/// Reads the first bytes from a peer.
pub fn read(bytes: &[u8], additional: &[impl AsRef<str>]) -> Greeting {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Greeting::NeedHeader;
    };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Greeting::NeedHeader;
    };
    if u32::from_be_bytes(*magic) != MAGIC {
        return Greeting::NoHeader;
    }
    let length = u32::from_be_bytes(*length) as usize;
    let Some(data) = rest.get(..length) else {
        return Greeting::NeedData;
    };
    let Ok(any) = Any::decode(data) else {
        return Greeting::Malformed;
    };
    let peer = Struct::decode(any.value.as_slice()).ok().and_then(|data| {
        match data.fields.get(METADATA)?.kind.as_ref()? {
            Kind::StructValue(metadata) => Some(Box::new(Peer::of_struct(metadata, additional))),
            _ => None,
        }
    });
    Greeting::Peer(HEADER + length, peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_book() {
        let own = Peer {
            namespace: "ns".to_owned(),
            ..Peer::default()
        };
        let bytes = greeting(&own, "n");
        let mut expected = b"\x3d\x23\x04\x67\x00\x00\x00\x80\x0a\x2atype.googleapis.com/google.protobuf.Struct\x12\x52".to_vec();
        expected.extend_from_slice(b"\x0a\x2d\x0a\x15x-envoy-peer-metadata\x12\x14\x2a\x12");
        let inner =
            b"\x0a\x0c\x0a\x06LABELS\x12\x02\x2a\x00\x0a\x11\x0a\x09NAMESPACE\x12\x04\x1a\x02ns";
        assert_eq!(bytes.get(..4), expected.get(..4));
        let found = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(found(inner));
        assert!(found(
            b"\x0a\x2atype.googleapis.com/google.protobuf.Struct\x12"
        ));
        assert!(found(b"\x0a\x18x-envoy-peer-metadata-id\x12\x03\x1a\x01n"));
        let length = u32::from_be_bytes(*bytes.get(4..8).unwrap().first_chunk().unwrap());
        assert_eq!(length as usize + HEADER_LENGTH, bytes.len());
    }

    #[test]
    fn piece_by_piece() {
        let own = Peer {
            workload: "w".to_owned(),
            ..Peer::default()
        };
        let mut bytes = greeting(&own, "n");
        let whole = bytes.len();
        bytes.extend_from_slice(b"payload");
        for end in 0..whole {
            let wanted = if end < HEADER_LENGTH {
                Greeting::NeedHeader
            } else {
                Greeting::NeedData
            };
            assert_eq!(read(bytes.get(..end).unwrap(), &[""; 0]), wanted);
        }
        assert_eq!(
            read(&bytes, &[""; 0]),
            Greeting::Peer(whole, Some(Box::new(own)))
        );
        assert_eq!(read(b"GET / HTTP/1.1", &[""; 0]), Greeting::NoHeader);
    }
}
