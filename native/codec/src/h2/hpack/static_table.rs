//! The static table (RFC 7541 appendix A), with its names classified, and the way back from a name to its index.

use super::name::{Name, Pseudo};
use crate::h1::KnownHeader;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Name and value.
    pub(crate) text: &'static str,
    pub(crate) name_len: u8,
    pub(crate) kind: Name,
}

impl Field {
    #[inline]
    pub(crate) fn name(&self) -> &'static str {
        self.text
            .get(..usize::from(self.name_len))
            .unwrap_or_default()
    }
}

macro_rules! field {
    ($name:literal, $value:literal, $kind:expr) => {
        Field {
            text: concat!($name, $value),
            name_len: $name.len() as u8,
            kind: $kind,
        }
    };
}

/// How many rows there are: the dynamic table's indexes begin one above.
pub(crate) const COUNT: u32 = ROWS.len() as u32;

#[rustfmt::skip]
static ROWS: [Field; 61] = [
    field!(":authority", "", Name::Pseudo(Pseudo::Authority)),
    field!(":method", "GET", Name::Pseudo(Pseudo::Method)),
    field!(":method", "POST", Name::Pseudo(Pseudo::Method)),
    field!(":path", "/", Name::Pseudo(Pseudo::Path)),
    field!(":path", "/index.html", Name::Pseudo(Pseudo::Path)),
    field!(":scheme", "http", Name::Pseudo(Pseudo::Scheme)),
    field!(":scheme", "https", Name::Pseudo(Pseudo::Scheme)),
    field!(":status", "200", Name::Pseudo(Pseudo::Status)),
    field!(":status", "204", Name::Pseudo(Pseudo::Status)),
    field!(":status", "206", Name::Pseudo(Pseudo::Status)),
    field!(":status", "304", Name::Pseudo(Pseudo::Status)),
    field!(":status", "400", Name::Pseudo(Pseudo::Status)),
    field!(":status", "404", Name::Pseudo(Pseudo::Status)),
    field!(":status", "500", Name::Pseudo(Pseudo::Status)),
    field!("accept-charset", "", Name::Header(KnownHeader::Other)),
    field!("accept-encoding", "gzip, deflate", Name::Header(KnownHeader::AcceptEncoding)),
    field!("accept-language", "", Name::Header(KnownHeader::AcceptLanguage)),
    field!("accept-ranges", "", Name::Header(KnownHeader::Other)),
    field!("accept", "", Name::Header(KnownHeader::Accept)),
    field!("access-control-allow-origin", "", Name::Header(KnownHeader::AccessControlAllowOrigin)),
    field!("age", "", Name::Header(KnownHeader::Age)),
    field!("allow", "", Name::Header(KnownHeader::Other)),
    field!("authorization", "", Name::Header(KnownHeader::Authorization)),
    field!("cache-control", "", Name::Header(KnownHeader::CacheControl)),
    field!("content-disposition", "", Name::Header(KnownHeader::Other)),
    field!("content-encoding", "", Name::Header(KnownHeader::ContentEncoding)),
    field!("content-language", "", Name::Header(KnownHeader::Other)),
    field!("content-length", "", Name::Header(KnownHeader::ContentLength)),
    field!("content-location", "", Name::Header(KnownHeader::Other)),
    field!("content-range", "", Name::Header(KnownHeader::Other)),
    field!("content-type", "", Name::Header(KnownHeader::ContentType)),
    field!("cookie", "", Name::Header(KnownHeader::Cookie)),
    field!("date", "", Name::Header(KnownHeader::Date)),
    field!("etag", "", Name::Header(KnownHeader::Etag)),
    field!("expect", "", Name::Header(KnownHeader::Expect)),
    field!("expires", "", Name::Header(KnownHeader::Other)),
    field!("from", "", Name::Header(KnownHeader::Other)),
    field!("host", "", Name::Header(KnownHeader::Host)),
    field!("if-match", "", Name::Header(KnownHeader::Other)),
    field!("if-modified-since", "", Name::Header(KnownHeader::Other)),
    field!("if-none-match", "", Name::Header(KnownHeader::Other)),
    field!("if-range", "", Name::Header(KnownHeader::Other)),
    field!("if-unmodified-since", "", Name::Header(KnownHeader::Other)),
    field!("last-modified", "", Name::Header(KnownHeader::LastModified)),
    field!("link", "", Name::Header(KnownHeader::Other)),
    field!("location", "", Name::Header(KnownHeader::Location)),
    field!("max-forwards", "", Name::Header(KnownHeader::Other)),
    field!("proxy-authenticate", "", Name::Header(KnownHeader::ProxyAuthenticate)),
    field!("proxy-authorization", "", Name::Header(KnownHeader::ProxyAuthorization)),
    field!("range", "", Name::Header(KnownHeader::Range)),
    field!("referer", "", Name::Header(KnownHeader::Referer)),
    field!("refresh", "", Name::Header(KnownHeader::Other)),
    field!("retry-after", "", Name::Header(KnownHeader::Other)),
    field!("server", "", Name::Header(KnownHeader::Server)),
    field!("set-cookie", "", Name::Header(KnownHeader::SetCookie)),
    field!("strict-transport-security", "", Name::Header(KnownHeader::Other)),
    field!("transfer-encoding", "", Name::Header(KnownHeader::TransferEncoding)),
    field!("user-agent", "", Name::Header(KnownHeader::UserAgent)),
    field!("vary", "", Name::Header(KnownHeader::Vary)),
    field!("via", "", Name::Header(KnownHeader::Via)),
    field!("www-authenticate", "", Name::Header(KnownHeader::Other)),
];

/// The row of a one-based index.
#[inline]
pub(crate) fn get(index: u32) -> Option<&'static Field> {
    ROWS.get((index as usize).wrapping_sub(1))
}

/// The first index of a name, 0 if it has none.
#[inline]
pub(crate) const fn index_of_known(known: KnownHeader) -> u32 {
    match known {
        KnownHeader::AcceptEncoding => 16,
        KnownHeader::AcceptLanguage => 17,
        KnownHeader::Accept => 19,
        KnownHeader::AccessControlAllowOrigin => 20,
        KnownHeader::Age => 21,
        KnownHeader::Authorization => 23,
        KnownHeader::CacheControl => 24,
        KnownHeader::ContentEncoding => 26,
        KnownHeader::ContentLength => 28,
        KnownHeader::ContentType => 31,
        KnownHeader::Cookie => 32,
        KnownHeader::Date => 33,
        KnownHeader::Etag => 34,
        KnownHeader::Expect => 35,
        KnownHeader::Host => 38,
        KnownHeader::LastModified => 44,
        KnownHeader::Location => 46,
        KnownHeader::ProxyAuthenticate => 48,
        KnownHeader::ProxyAuthorization => 49,
        KnownHeader::Range => 50,
        KnownHeader::Referer => 51,
        KnownHeader::Server => 54,
        KnownHeader::SetCookie => 55,
        KnownHeader::TransferEncoding => 57,
        KnownHeader::UserAgent => 58,
        KnownHeader::Vary => 59,
        KnownHeader::Via => 60,
        _ => 0,
    }
}

/// The same for names that are no [`KnownHeader`].
pub(crate) fn index_of_other(name: &[u8]) -> u32 {
    match name {
        b"accept-charset" => 15,
        b"accept-ranges" => 18,
        b"allow" => 22,
        b"content-disposition" => 25,
        b"content-language" => 27,
        b"content-location" => 29,
        b"content-range" => 30,
        b"expires" => 36,
        b"from" => 37,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"link" => 45,
        b"max-forwards" => 47,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"strict-transport-security" => 56,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

/// The first index of a pseudo header's name, 0 if it has none.
pub(crate) const fn index_of_pseudo(pseudo: Pseudo) -> u32 {
    match pseudo {
        Pseudo::Authority => 1,
        Pseudo::Method => 2,
        Pseudo::Path => 4,
        Pseudo::Scheme => 6,
        Pseudo::Status => 8,
        Pseudo::Protocol => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_and_kinds_agree() {
        assert_eq!(COUNT, 61);
        assert!(get(0).is_none() && get(62).is_none());
        for index in 1..=COUNT {
            let row = get(index).unwrap();
            let name = row.name().as_bytes();
            let (kind, back) = if name.starts_with(b":") {
                let Name::Pseudo(pseudo) = Name::pseudo(name) else {
                    panic!()
                };
                (Name::Pseudo(pseudo), index_of_pseudo(pseudo))
            } else {
                let known = KnownHeader::from_name(name);
                let back = match known {
                    KnownHeader::Other => index_of_other(name),
                    known => index_of_known(known),
                };
                (Name::Header(known), back)
            };
            assert_eq!(row.kind, kind);
            assert_eq!(get(back).unwrap().name(), row.name());
            assert!(back <= index && index - back < 7);
        }
    }
}
