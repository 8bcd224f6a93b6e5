//! An established connection: application data, and what else a peer may say after the handshake (RFC 8446, 4.6 and 6).

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};

use crate::error::{Reason, TlsError, alert, fatal, is_close_notify};
use crate::record::{
    self, ALERT, APPLICATION_DATA, HANDSHAKE, Half, MAX_PLAINTEXT, Opened, Pieces,
};

/// BoringSSL's limits for what makes no progress.
const MAX_EMPTY_RECORDS: u8 = 32;
const MAX_KEY_UPDATES: u8 = 32;
const MAX_WARNINGS: u8 = 4;
const MAX_MESSAGE: usize = 16_384;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Keys, and what is needed to change them.
pub(crate) struct Established {
    read: Half,
    write: Half,
    keys: Keys,
    /// A message that goes on in the next record.
    message: Vec<u8>,
    empty_records: u8,
    key_updates: u8,
    warnings: u8,
}

/// rustls's part after the handshake. TLS 1.2 has none.
pub(crate) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
    Fixed,
}

/// What has been made of the ciphertext.
pub(crate) struct Read {
    /// Of the whole buffer.
    pub(crate) consumed: usize,
    pub(crate) plaintext: usize,
    pub(crate) closed: bool,
}

enum Event {
    Data,
    Nothing,
    Closed,
}

impl Keys {
    fn next(&mut self, write: bool) -> Result<(u64, ConnectionTrafficSecrets), TlsError> {
        let secret = match (self, write) {
            (Self::Client(keys), true) => keys.update_tx_secret(),
            (Self::Client(keys), false) => keys.update_rx_secret(),
            (Self::Server(keys), true) => keys.update_tx_secret(),
            (Self::Server(keys), false) => keys.update_rx_secret(),
            (Self::Fixed, _) => return Err(Reason::UnexpectedMessage.error()),
        };
        secret.map_err(|error| crate::error::from_rustls(&error))
    }
}

impl Established {
    pub(crate) fn new(secrets: ExtractedSecrets, keys: Keys) -> Result<Self, TlsError> {
        let tls13 = !matches!(keys, Keys::Fixed);
        Ok(Self {
            read: Half::new(secrets.rx, tls13)?,
            write: Half::new(secrets.tx, tls13)?,
            keys,
            message: Vec::new(),
            empty_records: 0,
            key_updates: 0,
            warnings: 0,
        })
    }

    const fn is_tls13(&self) -> bool {
        !matches!(self.keys, Keys::Fixed)
    }

    /// Opens all whole records from `start` on and gathers their data at the front of `bytes`.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Read, TlsError> {
        let mut read = Read {
            consumed: start,
            plaintext: 0,
            closed: false,
        };
        match self.open_all(bytes, &mut read, out) {
            Ok(()) => Ok(read),
            Err((reason, error)) => {
                if let Some(reason) = reason {
                    // The alert is a courtesy; the connection is over in any case.
                    let _ = self.alert(fatal(reason.alert()), out);
                }
                Err(error)
            }
        }
    }

    fn open_all(
        &mut self,
        bytes: &mut [u8],
        read: &mut Read,
        out: &mut Vec<u8>,
    ) -> Result<(), (Option<Reason>, TlsError)> {
        let whole = |error: TlsError| (None, error);
        while !read.closed {
            let rest = bytes.get_mut(read.consumed..).unwrap_or_default();
            let length = record::length(rest, false);
            let length = length.map_err(|reason| (Some(reason), reason.error()))?;
            let Some(record) = length.and_then(|length| rest.get_mut(..length)) else {
                break;
            };
            let opened = self
                .read
                .open(record)
                .map_err(|reason| (Some(reason), reason.error()))?;
            let contents = record.get(opened.start..opened.end).unwrap_or_default();
            let at = read.consumed;
            read.consumed += record.len();
            match self.take(&opened, contents, out).map_err(|refused| {
                let Refused(reason, error) = refused;
                (reason, error)
            })? {
                Event::Data => {
                    let from = at + opened.start;
                    let length = opened.end - opened.start;
                    bytes.copy_within(from..from + length, read.plaintext);
                    read.plaintext += length;
                }
                Event::Nothing => {}
                Event::Closed => read.closed = true,
            }
        }
        if self.write.is_worn() {
            self.change_write_key(out).map_err(whole)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        opened: &Opened,
        contents: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Event, Refused> {
        if contents.is_empty() {
            self.empty_records += 1;
            if self.empty_records > MAX_EMPTY_RECORDS {
                return Err(Reason::TooManyEmptyFragments.into());
            }
            if opened.kind == APPLICATION_DATA {
                return Ok(Event::Nothing);
            }
        } else {
            self.empty_records = 0;
        }
        if !self.message.is_empty() && opened.kind != HANDSHAKE {
            return Err(Reason::UnexpectedRecord.into());
        }
        match opened.kind {
            APPLICATION_DATA => {
                self.key_updates = 0;
                self.warnings = 0;
                Ok(Event::Data)
            }
            ALERT => self.take_alert(contents),
            HANDSHAKE => self.take_handshake(contents, out),
            _ => Err(Reason::UnexpectedRecord.into()),
        }
    }

    fn take_alert(&mut self, contents: &[u8]) -> Result<Event, Refused> {
        let &[level, description] = contents else {
            return Err(Reason::BadAlert.into());
        };
        if is_close_notify(description) {
            return Ok(Event::Closed);
        }
        // TLS 1.3 has no warnings but user_canceled.
        let harmless = if self.is_tls13() {
            description == 90
        } else {
            level == 1
        };
        if !harmless {
            return Err(Refused(None, alert(description)));
        }
        self.warnings += 1;
        if self.warnings > MAX_WARNINGS {
            return Err(Reason::TooManyWarningAlerts.into());
        }
        Ok(Event::Nothing)
    }

    fn take_handshake(&mut self, contents: &[u8], out: &mut Vec<u8>) -> Result<Event, Refused> {
        if !self.is_tls13() {
            // Someone wants to negotiate again.
            return Err(Reason::NoRenegotiation.into());
        }
        let mut whole = std::mem::take(&mut self.message);
        whole.extend_from_slice(contents);
        let mut rest = whole.as_slice();
        while let Some((&[kind, high, middle, low], body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MAX_MESSAGE {
                return Err(Reason::ExcessiveMessageSize.into());
            }
            let Some((body, behind)) = body.split_at_checked(length) else {
                break;
            };
            rest = behind;
            match (kind, &mut self.keys) {
                (NEW_SESSION_TICKET, Keys::Client(keys)) => {
                    match keys.handle_new_session_ticket(body) {
                        Ok(()) => {}
                        Err(Error::InvalidMessage(_)) => return Err(Reason::DecodeError.into()),
                        Err(error) => return Err(Refused(None, crate::error::from_rustls(&error))),
                    }
                }
                (KEY_UPDATE, _) => {
                    // The key changes with the record.
                    if !rest.is_empty() {
                        return Err(Reason::UnexpectedMessage.into());
                    }
                    self.take_key_update(body, out)?;
                }
                _ => return Err(Reason::UnexpectedMessage.into()),
            }
        }
        if !rest.is_empty() {
            self.message = rest.to_vec();
        }
        Ok(Event::Nothing)
    }

    fn take_key_update(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let requested = match body {
            [0] => false,
            [1] => true,
            _ => return Err(Reason::DecodeError.into()),
        };
        self.key_updates += 1;
        if self.key_updates > MAX_KEY_UPDATES {
            return Err(Reason::TooManyKeyUpdates.into());
        }
        let ended = |error| Refused(None, error);
        let secrets = self.keys.next(false).map_err(ended)?;
        self.read = Half::new(secrets, true).map_err(ended)?;
        if requested {
            self.change_write_key(out).map_err(ended)?;
        }
        Ok(())
    }

    fn change_write_key(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let message: &[u8] = &[KEY_UPDATE, 0, 0, 1, 0];
        self.write
            .seal(HANDSHAKE, &mut Pieces::new(&[message]), message.len(), out)?;
        let secrets = self.keys.next(true)?;
        self.write = Half::new(secrets, true)?;
        Ok(())
    }

    pub(crate) fn alert(&mut self, contents: [u8; 2], out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write
            .seal(ALERT, &mut Pieces::new(&[&contents]), contents.len(), out)
    }

    pub(crate) fn send(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
        let records = left.div_ceil(MAX_PLAINTEXT);
        // Header, explicit nonce or inner type, and tag.
        out.reserve(left + records * 32);
        let mut pieces = Pieces::new(pieces);
        while left > 0 {
            let length = left.min(MAX_PLAINTEXT);
            self.write
                .seal(APPLICATION_DATA, &mut pieces, length, out)?;
            left -= length;
            if self.write.is_worn() {
                self.change_write_key(out)?;
            }
        }
        Ok(())
    }
}

/// Why a record ends the connection, and the alert to send if there is one to send.
struct Refused(Option<Reason>, TlsError);

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self(Some(reason), reason.error())
    }
}
