//! What goes wrong with a TLS connection, in the words and numbers of BoringSSL as Envoy puts them into
//! `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.

use std::fmt;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

/// Why a connection ended or a context could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// As the log operators print it: `TLS_error:|268435581:SSL
    /// routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:…:TLS_error_end`.
    pub reason: String,
    pub failure: Failure,
}

impl std::error::Error for TlsError {}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Which counter of `ssl.` an error belongs to, `connection_error` if it is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `fail_verify_no_cert`.
    VerifyNoCert,
    /// `fail_verify_error`: the chain.
    VerifyError,
    /// `fail_verify_san`.
    VerifySan,
    /// `fail_verify_cert_hash`: hash or SPKI.
    VerifyCertHash,
    /// `connection_error`.
    Connection,
    /// `ocsp_staple_failed`, and `connection_error`.
    OcspStaple,
    /// No connection: a context that cannot be made.
    Configuration,
}

impl TlsError {
    pub(crate) fn internal(what: &str) -> Self {
        Self {
            reason: format!("TLS_error:|{what}:TLS_error_end"),
            failure: Failure::Connection,
        }
    }

    pub(crate) fn configuration(what: impl Into<String>) -> Self {
        Self {
            reason: what.into(),
            failure: Failure::Configuration,
        }
    }

    /// A certificate that was refused: BoringSSL's error, and Envoy's words behind it.
    pub(crate) fn verification(details: &str, failure: Failure) -> Self {
        let mut error = Reason::CertificateVerifyFailed.error();
        error.failure = failure;
        if !details.is_empty() {
            error.reason = error.reason.replace(END, &format!(":{details}{END}"));
        }
        error
    }
}

macro_rules! reasons {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// `SSL_R_…`
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Reason { $($name,)* }

        impl Reason {
            const fn code_and_text(self) -> (u32, &'static str) {
                match self { $(Self::$name => ($code, $text),)* }
            }
        }
    };
}

reasons! {
    BadPacketLength = 112, "BAD_PACKET_LENGTH";
    BadSignature = 114, "BAD_SIGNATURE";
    ClientHelloParseFailed = 131, "CLIENTHELLO_PARSE_FAILED";
    CertificateVerifyFailed = 125, "CERTIFICATE_VERIFY_FAILED";
    DataLengthTooLong = 136, "DATA_LENGTH_TOO_LONG";
    DecodeError = 137, "DECODE_ERROR";
    DecryptionFailedOrBadRecordMac = 139, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC";
    EncryptedLengthTooLong = 146, "ENCRYPTED_LENGTH_TOO_LONG";
    ExcessiveMessageSize = 150, "EXCESSIVE_MESSAGE_SIZE";
    HttpsProxyRequest = 155, "HTTPS_PROXY_REQUEST";
    HttpRequest = 156, "HTTP_REQUEST";
    NoRenegotiation = 182, "NO_RENEGOTIATION";
    NoSharedCipher = 184, "NO_SHARED_CIPHER";
    PeerDidNotReturnACertificate = 192, "PEER_DID_NOT_RETURN_A_CERTIFICATE";
    TooManyEmptyFragments = 219, "TOO_MANY_EMPTY_FRAGMENTS";
    TooManyWarningAlerts = 220, "TOO_MANY_WARNING_ALERTS";
    UnexpectedMessage = 223, "UNEXPECTED_MESSAGE";
    UnexpectedRecord = 225, "UNEXPECTED_RECORD";
    UnsupportedProtocol = 240, "UNSUPPORTED_PROTOCOL";
    WrongCurve = 243, "WRONG_CURVE";
    WrongVersionNumber = 247, "WRONG_VERSION_NUMBER";
    InvalidOuterRecordType = 251, "INVALID_OUTER_RECORD_TYPE";
    NoCommonSignatureAlgorithms = 253, "NO_COMMON_SIGNATURE_ALGORITHMS";
    TooManyKeyUpdates = 260, "TOO_MANY_KEY_UPDATES";
    NoSharedGroup = 266, "NO_SHARED_GROUP";
    OcspCbError = 289, "OCSP_CB_ERROR";
    KeyUsageBitIncorrect = 302, "KEY_USAGE_BIT_INCORRECT";
    BadAlert = 102, "BAD_ALERT";
    HandshakeFailure = 215, "SSL_HANDSHAKE_FAILURE";
}

/// The alerts that rustls and BoringSSL differ in.
pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
pub(crate) const PROTOCOL_VERSION: u8 = 70;

const END: &str = ":TLS_error_end";

/// Where BoringSSL's error numbers of the SSL library begin.
const SSL_LIBRARY: u32 = 16 << 24;

impl Reason {
    pub(crate) fn error(self) -> TlsError {
        let (code, text) = self.code_and_text();
        let mut reason = line(code, text);
        if self == Self::PeerDidNotReturnACertificate {
            // Envoy's own word after BoringSSL's.
            let details = "peer did not provide required client certificate";
            reason = reason.replace(END, &format!(":{details}{END}"));
        }
        TlsError {
            reason,
            failure: match self {
                Self::PeerDidNotReturnACertificate => Failure::VerifyNoCert,
                Self::OcspCbError => Failure::OcspStaple,
                _ => Failure::Connection,
            },
        }
    }

    /// Whether the peer speaks another protocol, in which an alert would be noise.
    pub(crate) const fn is_http(self) -> bool {
        matches!(self, Self::HttpRequest | Self::HttpsProxyRequest)
    }

    /// The alert that tells the peer.
    pub(crate) const fn alert(self) -> u8 {
        match self {
            Self::DecryptionFailedOrBadRecordMac => 20,
            Self::EncryptedLengthTooLong | Self::DataLengthTooLong => 22,
            Self::NoRenegotiation => 100,
            Self::DecodeError | Self::BadPacketLength | Self::BadAlert => 50,
            Self::WrongVersionNumber | Self::UnsupportedProtocol => PROTOCOL_VERSION,
            Self::ExcessiveMessageSize => 47,
            _ => 10,
        }
    }
}

fn line(code: u32, text: &str) -> String {
    let number = SSL_LIBRARY + code;
    format!("TLS_error:|{number}:SSL routines:OPENSSL_internal:{text}:TLS_error_end")
}

/// What the peer complained of.
pub(crate) fn alert(description: u8) -> TlsError {
    let text = match description {
        0 => "SSLV3_ALERT_CLOSE_NOTIFY",
        10 => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        20 => "SSLV3_ALERT_BAD_RECORD_MAC",
        21 => "TLSV1_ALERT_DECRYPTION_FAILED",
        22 => "TLSV1_ALERT_RECORD_OVERFLOW",
        30 => "SSLV3_ALERT_DECOMPRESSION_FAILURE",
        40 => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        41 => "SSLV3_ALERT_NO_CERTIFICATE",
        42 => "SSLV3_ALERT_BAD_CERTIFICATE",
        43 => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        44 => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        45 => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        46 => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        47 => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        48 => "TLSV1_ALERT_UNKNOWN_CA",
        49 => "TLSV1_ALERT_ACCESS_DENIED",
        50 => "TLSV1_ALERT_DECODE_ERROR",
        51 => "TLSV1_ALERT_DECRYPT_ERROR",
        60 => "TLSV1_ALERT_EXPORT_RESTRICTION",
        70 => "TLSV1_ALERT_PROTOCOL_VERSION",
        71 => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        80 => "TLSV1_ALERT_INTERNAL_ERROR",
        86 => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        90 => "TLSV1_ALERT_USER_CANCELLED",
        100 => "TLSV1_ALERT_NO_RENEGOTIATION",
        110 => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        111 => "TLSV1_ALERT_CERTIFICATE_UNOBTAINABLE",
        112 => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        113 => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        114 => "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
        115 => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        116 => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        120 => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        121 => "TLSV1_ALERT_ECH_REQUIRED",
        _ => return Reason::BadAlert.error(),
    };
    TlsError {
        reason: line(1000 + u32::from(description), text),
        failure: Failure::Connection,
    }
}

/// rustls's error in BoringSSL's words, as near as there are any.
pub(crate) fn from_rustls(error: &Error) -> TlsError {
    let reason = match error {
        Error::AlertReceived(description) => return alert(u8::from(*description)),
        Error::NoCertificatesPresented => Reason::PeerDidNotReturnACertificate,
        Error::InvalidCertificate(error) => {
            return TlsError::verification(
                &format!("verify cert failed: {error}"),
                Failure::VerifyError,
            );
        }
        Error::PeerIncompatible(incompatible) => match incompatible {
            PeerIncompatible::NoCipherSuitesInCommon => Reason::NoSharedCipher,
            PeerIncompatible::NoKxGroupsInCommon => Reason::NoSharedGroup,
            PeerIncompatible::NamedGroupsExtensionRequired => Reason::WrongCurve,
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
                Reason::NoCommonSignatureAlgorithms
            }
            _ => Reason::UnsupportedProtocol,
        },
        Error::DecryptError => Reason::DecryptionFailedOrBadRecordMac,
        Error::PeerSentOversizedRecord => Reason::EncryptedLengthTooLong,
        Error::InappropriateMessage { .. } => Reason::UnexpectedRecord,
        Error::InappropriateHandshakeMessage { .. } => Reason::UnexpectedMessage,
        Error::InvalidMessage(invalid) => match invalid {
            InvalidMessage::MessageTooLarge => Reason::EncryptedLengthTooLong,
            InvalidMessage::UnknownProtocolVersion => Reason::WrongVersionNumber,
            InvalidMessage::InvalidContentType => Reason::UnexpectedRecord,
            InvalidMessage::HandshakePayloadTooLarge => Reason::ExcessiveMessageSize,
            _ => Reason::DecodeError,
        },
        Error::PeerMisbehaved(misbehaved) => match misbehaved {
            PeerMisbehaved::TooManyWarningAlertsReceived => Reason::TooManyWarningAlerts,
            PeerMisbehaved::TooManyEmptyFragments => Reason::TooManyEmptyFragments,
            PeerMisbehaved::TooManyKeyUpdateRequests => Reason::TooManyKeyUpdates,
            PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme
            | PeerMisbehaved::SignedKxWithWrongAlgorithm => Reason::BadSignature,
            _ => Reason::UnexpectedMessage,
        },
        Error::General(_) => Reason::HandshakeFailure,
        _ => Reason::DecodeError,
    };
    reason.error()
}

/// A fatal alert before keys are agreed, or the contents of one afterwards.
pub(crate) const fn fatal(description: u8) -> [u8; 2] {
    [2, description]
}

pub(crate) fn is_close_notify(description: u8) -> bool {
    AlertDescription::from(description) == AlertDescription::CloseNotify
}
