//! What a script may ask of the stream it runs for.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Levels of the process's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

/// A list of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Of the message's head, pseudo headers included.
    Headers,
    Trailers,
}

/// A text about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Protocol,
    RouteName,
    LocalAddress,
    DirectLocalAddress,
    RemoteAddress,
    DirectRemoteAddress,
    RequestedServerName,
}

/// A text about the client's TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslText {
    Sha256PeerCertificateDigest,
    SerialNumberPeerCertificate,
    IssuerPeerCertificate,
    SubjectPeerCertificate,
    SubjectLocalCertificate,
    PemPeerCertificate,
    PemPeerCertificateChain,
    CiphersuiteString,
    TlsVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslList {
    UriSanLocal,
    UriSanPeer,
    DnsSansLocal,
    DnsSansPeer,
}

/// Seconds since 1970, or whether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslNumber {
    ValidFromPeer,
    ExpirationPeer,
    Presented,
    Validated,
}

/// What is said of a route or of the filter on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    Route,
    FilterContext,
}

/// See the module. Header names are given in lower case.
pub trait Host: 'static {
    fn each_value(&self, list: List, name: &[u8], each: &mut dyn FnMut(&[u8]));
    fn each_header(&self, list: List, each: &mut dyn FnMut(&[u8], &[u8]));
    fn add(&mut self, list: List, name: &[u8], value: &[u8]);
    fn set(&mut self, list: List, name: &[u8], value: &[u8]);
    fn remove(&mut self, list: List, name: &[u8]);
    /// The body has this length now.
    fn set_length(&mut self, length: usize);
    /// The text of an HTTP/1 response's status line.
    fn set_reason(&mut self, reason: &[u8]);
    /// The head has been changed.
    fn touched(&mut self);

    fn text(&self, text: Text) -> Cow<'_, str>;
    fn metadata(&self, which: Metadata) -> Option<&Map<String, Value>>;

    fn dynamic(&self, filter: &str) -> Option<Cow<'_, Map<String, Value>>>;
    fn dynamic_names(&self) -> Vec<String>;
    fn set_dynamic(&mut self, filter: &str, key: &str, value: Value);

    fn is_secure(&self) -> bool;
    fn ssl_text(&self, text: SslText) -> String;
    fn ssl_list(&self, list: SslList) -> Vec<String>;
    fn ssl_number(&self, number: SslNumber) -> i64;

    fn log(&self, level: Level, text: &[u8]);
}
