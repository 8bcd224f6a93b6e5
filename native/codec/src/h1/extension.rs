//! Chunk extensions (RFC 9112 section 7.1.1), read one byte at a time and never passed on.
//!
//! ```text
//!   *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )
//! ```

use super::chars::{self, TOKEN};

/// Where within the extensions of a size line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    /// Behind the size or a complete extension: white space, `;` or the end.
    Between {
        spaces: bool,
    },
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
}

impl Extension {
    /// `None`: the byte may not stand here. CR ends the line if [`Extension::may_end`].
    #[inline]
    pub(super) fn step(self, byte: u8) -> Option<Self> {
        let token = chars::is(&TOKEN, byte);
        let space = matches!(byte, b' ' | b'\t');
        Some(match self {
            Self::Quoted => match byte {
                b'"' => Self::Between { spaces: false },
                b'\\' => Self::Escaped,
                b'\t' | 0x20..=0x7e | 0x80..=0xff => Self::Quoted,
                _ => return None,
            },
            Self::Escaped if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) => Self::Quoted,
            Self::Escaped => return None,
            Self::Between { .. } if space => Self::Between { spaces: true },
            Self::BeforeName if space => Self::BeforeName,
            Self::Name | Self::AfterName if space => Self::AfterName,
            Self::BeforeValue if space => Self::BeforeValue,
            Self::Value if space => Self::Between { spaces: true },
            Self::BeforeName | Self::Name if token => Self::Name,
            Self::BeforeValue | Self::Value if token => Self::Value,
            Self::BeforeValue if byte == b'"' => Self::Quoted,
            Self::Name | Self::AfterName if byte == b'=' => Self::BeforeValue,
            Self::Between { .. } | Self::Name | Self::AfterName | Self::Value if byte == b';' => {
                Self::BeforeName
            }
            _ => return None,
        })
    }

    /// Whether the line may end here. White space may only come before something.
    #[inline]
    pub(super) fn may_end(self) -> bool {
        matches!(
            self,
            Self::Between { spaces: false } | Self::Name | Self::Value
        )
    }
}
