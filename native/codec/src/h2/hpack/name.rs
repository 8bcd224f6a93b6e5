//! What a header name is, in one byte: a pseudo header, a known header or any other.

use crate::h1::KnownHeader;

/// The pseudo headers of RFC 9113 section 8.3 and RFC 8441.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
}

/// A classified name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Pseudo(Pseudo),
    Header(KnownHeader),
    /// A name no field may have: upper case, not a token, or an unknown pseudo header.
    Invalid,
}

impl Name {
    #[inline]
    pub(crate) const fn known(self) -> KnownHeader {
        match self {
            Self::Header(known) => known,
            Self::Pseudo(_) | Self::Invalid => KnownHeader::Other,
        }
    }

    pub(crate) fn pseudo(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Pseudo(Pseudo::Authority),
            b":method" => Self::Pseudo(Pseudo::Method),
            b":path" => Self::Pseudo(Pseudo::Path),
            b":scheme" => Self::Pseudo(Pseudo::Scheme),
            b":status" => Self::Pseudo(Pseudo::Status),
            b":protocol" => Self::Pseudo(Pseudo::Protocol),
            _ => Self::Invalid,
        }
    }
}
