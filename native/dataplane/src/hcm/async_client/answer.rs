//! What a call has come to.

use tidegate_codec::h1::KnownHeader;
use tidegate_snapshot::grpc_status::of_http;

use crate::hcm::headers::HeaderList;

/// Why an answer is not the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    /// There is no such cluster; nothing was sent.
    NoCluster,
    /// The cluster could not serve the call, in time or at all: status and body are ours.
    Local,
    /// It ended in the middle of the answer.
    Reset,
    /// The answer is longer than it may be.
    TooLarge,
}

/// See the module.
pub(crate) struct Answer {
    /// 0 if there is none at all ([`CallFailure::NoCluster`]).
    pub(crate) status: u16,
    pub(crate) headers: HeaderList,
    pub(crate) trailers: HeaderList,
    pub(crate) body: Vec<u8>,
    pub(crate) failure: Option<CallFailure>,
}

/// Why a gRPC call has no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrpcStatus {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Answer {
    /// The message of a unary call that has succeeded.
    pub(crate) fn grpc(&self) -> Result<&[u8], GrpcStatus> {
        let status = |code, message: &[u8]| GrpcStatus {
            code,
            message: String::from_utf8_lossy(message).into_owned(),
        };
        match self.failure {
            None => {}
            Some(CallFailure::NoCluster) => return Err(status(14, b"Cluster not available")),
            Some(CallFailure::Local) if self.status == 504 => {
                return Err(status(4, &self.body));
            }
            Some(CallFailure::Local | CallFailure::Reset) => return Err(status(14, &self.body)),
            Some(CallFailure::TooLarge) => return Err(status(8, b"")),
        }
        let told = self
            .trailers
            .known(KnownHeader::GrpcStatus)
            .or_else(|| self.headers.known(KnownHeader::GrpcStatus));
        if self.status != 200 {
            return Err(status(of_http(u64::from(self.status)) as u32, b""));
        }
        let code = told
            .and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())
            .unwrap_or(2);
        if code != 0 {
            let message = self
                .trailers
                .known(KnownHeader::GrpcMessage)
                .or_else(|| self.headers.known(KnownHeader::GrpcMessage));
            return Err(status(code, message.unwrap_or_default()));
        }
        match self.body.split_first_chunk::<5>() {
            Some(([0, length @ ..], message))
                if u32::from_be_bytes(*length) as usize == message.len() =>
            {
                Ok(message)
            }
            _ => Err(status(13, b"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8], trailers: &[(&[u8], &[u8])]) -> Answer {
        let mut list = HeaderList::default();
        for (name, value) in trailers {
            list.add(name, value);
        }
        Answer {
            status,
            headers: HeaderList::default(),
            trailers: list,
            body: body.to_vec(),
            failure: None,
        }
    }

    #[test]
    fn unary_answers() {
        let ok = answer(200, b"\0\0\0\0\x02hi", &[(b"grpc-status", b"0")]);
        assert_eq!(ok.grpc().unwrap(), b"hi");
        let bad = answer(
            200,
            b"",
            &[(b"grpc-status", b"7"), (b"grpc-message", b"no")],
        );
        assert_eq!(bad.grpc().unwrap_err().code, 7);
        assert_eq!(answer(503, b"", &[]).grpc().unwrap_err().code, 14);
        let short = answer(200, b"\0\0\0\0\x03hi", &[(b"grpc-status", b"0")]);
        assert_eq!(short.grpc().unwrap_err().code, 13);
        assert_eq!(answer(200, b"", &[]).grpc().unwrap_err().code, 2);
    }
}
