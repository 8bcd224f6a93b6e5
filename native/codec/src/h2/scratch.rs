//! What a decoded head leaves behind: one per worker, overwritten by the next head or trailers.

use super::arena::Arena;
use super::validate::Judge;
use crate::h1::firsts::Firsts;
use crate::h1::{KnownHeader, Method, Span};

/// One header. The spans are read through [`Scratch::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    pub value: Span,
    pub known: KnownHeader,
    /// The sender forbids every hop to index it: to be passed on with [`super::OutField::sensitive`] set.
    pub sensitive: bool,
}

/// The pseudo headers of a request, checked. What is not there is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub method_span: Span,
    pub scheme: Span,
    /// `:authority`, or `host` if there is none; `host` itself is not among the fields.
    pub authority: Span,
    /// Empty only beside CONNECT.
    pub path: Span,
    /// Extended CONNECT.
    pub protocol: Option<Span>,
    pub content_length: Option<u64>,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::Other,
            method_span: Span::EMPTY,
            scheme: Span::EMPTY,
            authority: Span::EMPTY,
            path: Span::EMPTY,
            protocol: None,
            content_length: None,
        }
    }
}

/// The fields of the last head or trailers, with the first occurrence of each known name at hand.
#[derive(Debug)]
pub struct Scratch {
    pub(super) arena: Arena,
    pub(super) fields: Vec<Field>,
    firsts: Firsts,
    pub(super) request: RequestHead,
    pub(super) judge: Judge,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            arena: Arena::default(),
            fields: Vec::with_capacity(128),
            firsts: Firsts::new(),
            request: RequestHead::default(),
            judge: Judge::default(),
        }
    }

    /// After [`super::Event::Request`].
    #[inline]
    pub fn request(&self) -> &RequestHead {
        &self.request
    }

    /// The declared length of the message's body, if any.
    #[inline]
    pub fn content_length(&self) -> Option<u64> {
        self.judge.content_length
    }

    /// Headers or trailers in the order received, pseudo headers left out. Several `cookie` fields have become one.
    #[inline]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    #[inline]
    pub fn of(&self, span: Span) -> &[u8] {
        self.arena.of(span)
    }

    /// All the bytes that spans refer to.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.arena.bytes()
    }

    /// How many fields were left out for an underscore in their name.
    #[inline]
    pub fn dropped(&self) -> u32 {
        self.judge.dropped
    }

    #[inline]
    pub fn contains(&self, known: KnownHeader) -> bool {
        self.firsts.get(known).is_some()
    }

    /// The first field of that name.
    #[inline]
    pub fn first(&self, known: KnownHeader) -> Option<&Field> {
        self.fields.get(self.firsts.get(known)?)
    }

    /// The value of the first field of that name.
    #[inline]
    pub fn value(&self, known: KnownHeader) -> Option<&[u8]> {
        Some(self.of(self.first(known)?.value))
    }

    /// All fields of that name; stops early when there is none.
    pub fn all(&self, known: KnownHeader) -> impl Iterator<Item = &Field> {
        let from = self.firsts.get(known).unwrap_or(self.fields.len());
        self.fields
            .get(from..)
            .unwrap_or_default()
            .iter()
            .filter(move |field| field.known == known)
    }

    /// All fields of a name in lower case, known or not.
    pub fn by_name<'s>(&'s self, name: &'s [u8]) -> impl Iterator<Item = &'s Field> {
        self.fields
            .iter()
            .filter(move |field| field.name.len() == name.len() && self.of(field.name) == name)
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        for field in &self.fields {
            self.firsts.forget(field.known);
        }
        self.fields.clear();
        self.arena.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, field: Field) {
        self.firsts.note(field.known, self.fields.len());
        self.fields.push(field);
    }

    /// Takes the fields out for which `keep` says no, and numbers the others anew.
    #[cold]
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Field) -> bool) {
        let fields = std::mem::take(&mut self.fields);
        for field in &fields {
            self.firsts.forget(field.known);
        }
        self.fields.reserve(fields.capacity());
        for field in fields {
            if keep(&field) {
                self.push(field);
            }
        }
    }
}
