//! The rules of RFC 9113 section 8 for heads and trailers, applied while they are decoded.
//!
//! The first fault decides; from then on fields are only counted. What is passed on can be read in one way only by
//! whatever comes next, HTTP/1 included: `host` is folded into the authority, white space around values is cut, cookie
//! crumbs are joined.

use super::arena::Arena;
use super::error::{Malformed, Overflow};
use super::hpack::decoder::{Sink, Traits};
use super::hpack::name::{Name, Pseudo};
use super::options::Options;
use super::scratch::{Field, RequestHead, Scratch};
use crate::h1::{
    KnownHeader, Method, Span, UnderscoreAction, authority, chars, fields::parse_length, scan,
};

/// What kind of block this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Request,
    Response,
    Trailers,
    /// Decoded for the sake of the table only.
    Discarded,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed(Malformed),
    Overflow(Overflow),
}

/// The state of the judgement of one block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Judge {
    kind: Kind,
    /// Fields are wanted: the block has a meaning, and no fault so far.
    open: bool,
    pub(super) fault: Option<Fault>,
    /// Names and values so far, as Envoy counts them: without overhead.
    size: u64,
    count: u32,
    max_size: u64,
    max_count: u32,
    underscores: UnderscoreAction,
    allow_connect: bool,
    pseudo: [Span; 6],
    /// A bit for each pseudo header.
    seen: u8,
    /// `:authority` was looked at when it entered the table.
    authority_is_valid: bool,
    host: Option<Span>,
    cookies: u32,
    pub(super) content_length: Option<u64>,
    pub(super) dropped: u32,
}

impl Judge {
    #[inline]
    fn pseudo(&self, pseudo: Pseudo) -> Span {
        self.pseudo
            .get(pseudo as usize)
            .copied()
            .unwrap_or(Span::EMPTY)
    }

    #[inline]
    const fn has(&self, pseudo: Pseudo) -> bool {
        self.seen & (1 << pseudo as u8) != 0
    }

    #[cold]
    fn refuse(&mut self, why: Malformed) {
        self.fail(Fault::Malformed(why));
    }

    #[cold]
    fn fail(&mut self, fault: Fault) {
        self.fault = self.fault.or(Some(fault));
        self.open = false;
    }
}

impl Sink for Scratch {
    #[inline]
    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    #[inline]
    fn wants_fields(&self) -> bool {
        self.judge.open
    }

    #[inline]
    fn field(&mut self, name: Name, name_at: Span, value_at: Span, traits: Traits) {
        let judge = &mut self.judge;
        judge.count += 1;
        judge.size += (name_at.len() + value_at.len()) as u64;
        if judge.count > judge.max_count {
            judge.fail(Fault::Overflow(Overflow::TooManyHeaders));
            return;
        }
        if judge.size > judge.max_size {
            judge.fail(Fault::Overflow(Overflow::HeadersTooLarge));
            return;
        }
        if traits.is_plain() {
            self.push(Field {
                name: name_at,
                value: value_at,
                known: name.known(),
                sensitive: false,
            });
            return;
        }
        if traits.is_bad() {
            judge.refuse(Malformed::HeaderValue);
            return;
        }
        let mut value = value_at;
        if traits.is_padded() {
            value = trimmed(&self.arena, value);
        }
        match name {
            Name::Pseudo(pseudo) => {
                self.judge.authority_is_valid |= traits.is_authority();
                self.pseudo(pseudo, value);
            }
            Name::Header(known) => {
                let field = Field {
                    name: name_at,
                    value,
                    known,
                    sensitive: traits.is_never_indexed(),
                };
                self.header(field);
            }
            Name::Invalid => judge.refuse(Malformed::HeaderName),
        }
    }
}

#[cold]
fn trimmed(arena: &Arena, span: Span) -> Span {
    let value = arena.of(span);
    let front = value.len() - value.trim_ascii_start().len();
    let kept = value.trim_ascii().len();
    let start = span.start as usize + front;
    Span::new(start, start + kept)
}

impl Scratch {
    /// Makes ready for a block.
    #[inline]
    pub(super) fn begin(&mut self, kind: Kind, options: &Options) {
        self.clear();
        self.judge = Judge {
            kind,
            open: kind != Kind::Discarded,
            max_size: u64::from(options.max_headers_kb) * 1024,
            max_count: options.max_headers_count.min(u32::from(u16::MAX) - 1),
            underscores: options.underscores,
            allow_connect: options.allow_connect,
            ..Judge::default()
        };
    }

    /// Stops looking at fields; what a block is too large to hold until its end.
    #[cold]
    pub(super) fn overflow(&mut self) {
        self.judge.fail(Fault::Overflow(Overflow::HeadersTooLarge));
    }

    #[inline]
    fn pseudo(&mut self, pseudo: Pseudo, value: Span) {
        let judge = &mut self.judge;
        let belongs = match judge.kind {
            Kind::Request => pseudo != Pseudo::Status,
            Kind::Response => pseudo == Pseudo::Status,
            Kind::Trailers | Kind::Discarded => false,
        };
        // Fields that were dropped, the host and such are no excuse.
        let headers_came = judge.count > judge.seen.count_ones() + 1;
        if !belongs || headers_came || judge.has(pseudo) {
            judge.refuse(Malformed::PseudoHeader);
            return;
        }
        judge.seen |= 1 << pseudo as u8;
        if let Some(slot) = judge.pseudo.get_mut(pseudo as usize) {
            *slot = value;
        }
    }

    #[inline]
    fn header(&mut self, field: Field) {
        if field.known == KnownHeader::Other {
            if self.judge.underscores != UnderscoreAction::Allow
                && memchr::memchr(b'_', self.of(field.name)).is_some()
            {
                self.underscore();
                return;
            }
        } else if field.known.is_framing() {
            if !self.framing(field) {
                return;
            }
        } else if field.known == KnownHeader::Cookie {
            self.judge.cookies += 1;
        }
        self.push(field);
    }

    #[cold]
    fn underscore(&mut self) {
        if self.judge.underscores == UnderscoreAction::Reject {
            self.judge.refuse(Malformed::Underscore);
        } else {
            self.judge.dropped += 1;
        }
    }

    /// Looks at a header that framing or the connection depends on; whether it stays among the fields.
    fn framing(&mut self, field: Field) -> bool {
        let repeated = self.contains(field.known);
        let trailers = self.judge.kind == Kind::Trailers;
        let value = self.arena.of(field.value);
        match field.known {
            KnownHeader::Connection
            | KnownHeader::ProxyConnection
            | KnownHeader::KeepAlive
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade => {
                self.judge.refuse(Malformed::ConnectionHeader);
                return false;
            }
            KnownHeader::Te => {
                if !value.eq_ignore_ascii_case(b"trailers") {
                    self.judge.refuse(Malformed::Te);
                    return false;
                }
                // Said twice it means no more, and in trailers it means nothing.
                return !repeated && !trailers;
            }
            // Trailers cannot change what has been decided (RFC 9110 section 6.5.1).
            _ if trailers => return false,
            KnownHeader::Host if self.judge.kind == Kind::Request => {
                if self.judge.host.is_some() {
                    self.judge.refuse(Malformed::Host);
                }
                self.judge.host = Some(field.value);
                return false;
            }
            KnownHeader::ContentLength => {
                let length = parse_length(value);
                if repeated || length.is_none() {
                    self.judge.refuse(Malformed::ContentLength);
                }
                self.judge.content_length = length;
            }
            _ => {}
        }
        true
    }

    /// Judges the whole block. For a response its status, else 0.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<u16, Fault> {
        if let Some(fault) = self.judge.fault {
            return Err(fault);
        }
        let status = match self.judge.kind {
            Kind::Request => self.finish_request().map(|()| 0),
            Kind::Response => self.finish_response(),
            Kind::Trailers | Kind::Discarded => Ok(0),
        };
        if self.judge.cookies > 1 {
            self.join_cookies();
        }
        status.map_err(Fault::Malformed)
    }

    #[inline]
    fn finish_request(&mut self) -> Result<(), Malformed> {
        let judge = &self.judge;
        if !judge.has(Pseudo::Method) {
            return Err(Malformed::MissingPseudoHeader);
        }
        let method_span = judge.pseudo(Pseudo::Method);
        let token = self.of(method_span);
        let method = match token {
            b"GET" => Method::Get,
            b"POST" => Method::Post,
            _ if token.is_empty() || !chars::all(&chars::TOKEN, token) => {
                return Err(Malformed::Method);
            }
            _ => Method::from_token(token).unwrap_or(Method::Other),
        };
        let extended = judge.has(Pseudo::Protocol);
        let plain_connect = method == Method::Connect && !extended;
        if extended && !judge.allow_connect {
            return Err(Malformed::PseudoHeader);
        }
        if extended && method != Method::Connect {
            return Err(Malformed::Connect);
        }
        let (scheme, path) = (judge.pseudo(Pseudo::Scheme), judge.pseudo(Pseudo::Path));
        if plain_connect {
            if judge.has(Pseudo::Scheme) || judge.has(Pseudo::Path) {
                return Err(Malformed::Connect);
            }
        } else {
            if !judge.has(Pseudo::Scheme) || !judge.has(Pseudo::Path) {
                return Err(Malformed::MissingPseudoHeader);
            }
            if !is_scheme(self.of(scheme)) {
                return Err(Malformed::Scheme);
            }
            if !is_path(self.of(path), method) {
                let first = self.of(path).first();
                return Err(match first {
                    Some(b'/') | None => Malformed::Path,
                    Some(_) => Malformed::RelativePath,
                });
            }
        }
        let authority = self.authority(plain_connect || extended)?;
        let protocol = extended.then(|| judge.pseudo(Pseudo::Protocol));
        if let Some(span) = protocol
            && (span.is_empty() || !chars::all(&chars::TOKEN, self.of(span)))
        {
            return Err(Malformed::Connect);
        }
        self.request = RequestHead {
            method,
            method_span,
            scheme,
            authority,
            path,
            protocol,
            content_length: self.judge.content_length,
        };
        Ok(())
    }

    /// `:authority` and `host` are one.
    #[inline]
    fn authority(&self, connect: bool) -> Result<Span, Malformed> {
        let judge = &self.judge;
        let span = judge.pseudo(Pseudo::Authority);
        let text = self.of(span);
        if judge.authority_is_valid && !connect {
            if text.is_empty() {
                return Err(Malformed::Authority);
            }
        } else if connect {
            if !judge.has(Pseudo::Authority) {
                return Err(Malformed::MissingPseudoHeader);
            }
            let whole = judge.has(Pseudo::Protocol) && authority::is_valid(text);
            if text.is_empty() || !(whole || authority::is_host_and_port(text)) {
                return Err(Malformed::Authority);
            }
        } else if !authority::is_valid(text) || (text.is_empty() && judge.has(Pseudo::Authority)) {
            return Err(Malformed::Authority);
        }
        let Some(host) = judge.host else {
            // HTTP/1 behind us needs one, and Envoy insists.
            return if judge.has(Pseudo::Authority) {
                Ok(span)
            } else {
                Err(Malformed::MissingPseudoHeader)
            };
        };
        if judge.has(Pseudo::Authority) {
            if !self.of(host).eq_ignore_ascii_case(text) {
                return Err(Malformed::Host);
            }
            return Ok(span);
        }
        if !authority::is_valid(self.of(host)) {
            return Err(Malformed::Authority);
        }
        Ok(host)
    }

    #[inline]
    fn finish_response(&mut self) -> Result<u16, Malformed> {
        let judge = &self.judge;
        if !judge.has(Pseudo::Status) {
            return Err(Malformed::MissingPseudoHeader);
        }
        let status = match self.of(judge.pseudo(Pseudo::Status)) {
            b"200" => 200,
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Malformed::Status),
        };
        if status == 101 {
            return Err(Malformed::Interim);
        }
        if matches!(status, 100..=199 | 204) && judge.content_length.is_some_and(|n| n > 0) {
            return Err(Malformed::ContentLength);
        }
        Ok(status)
    }

    /// One field in the place of the first (RFC 9113 section 8.2.3).
    #[cold]
    fn join_cookies(&mut self) {
        let start = self.arena.end();
        let mut sensitive = false;
        for at in 0..self.fields.len() {
            let Some(field) = self.fields.get(at).copied() else {
                break;
            };
            if field.known != KnownHeader::Cookie {
                continue;
            }
            sensitive |= field.sensitive;
            if self.arena.end() > start {
                self.arena.push(b"; ");
            }
            self.arena.repeat(field.value);
        }
        let joined = Span::new(start, self.arena.end());
        let mut first = true;
        self.retain(|field| {
            field.known != KnownHeader::Cookie || std::mem::replace(&mut first, false)
        });
        for field in &mut self.fields {
            if field.known == KnownHeader::Cookie {
                field.value = joined;
                field.sensitive = sensitive;
            }
        }
    }
}

#[inline]
fn is_scheme(scheme: &[u8]) -> bool {
    matches!(scheme, b"http" | b"https")
        || (scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
}

/// Printable ASCII, from a slash on; or `*` beside OPTIONS.
#[inline]
fn is_path(path: &[u8], method: Method) -> bool {
    match path.first() {
        Some(b'/') => scan::target_end(path, 0) == path.len(),
        Some(b'*') => path.len() == 1 && method == Method::Options,
        _ => false,
    }
}
