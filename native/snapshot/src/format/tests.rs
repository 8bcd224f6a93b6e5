use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tidegate_model::format::{AddressField, NumberField, TimePoint};

use super::*;
use crate::response_flags::ResponseFlags;

/// A request as Envoy 1.40 logged it, in owned values.
pub(crate) struct Sample {
    pub(crate) request: Vec<(&'static str, Vec<u8>)>,
    pub(crate) response: Vec<(&'static str, &'static str)>,
    pub(crate) flags: ResponseFlags,
    pub(crate) host: Option<SocketAddr>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self {
            request: vec![
                (":method", b"GET".to_vec()),
                (":path", b"/y?q=1&e=%20a%3D&q=2".to_vec()),
                (":authority", b"h".to_vec()),
                ("x-envoy-original-path", b"/x?q=1&e=%20a%3D&q=2".to_vec()),
                ("x-empty", b"".to_vec()),
                ("x-long", b"abcdefgh".to_vec()),
            ],
            response: vec![("x-envoy-upstream-service-time", "1")],
            flags: ResponseFlags::NONE,
            host: Some("127.0.0.1:23101".parse().unwrap()),
        }
    }
}

impl LogContext for Sample {
    fn header(&self, map: HeaderMap, name: &HeaderName) -> Option<&[u8]> {
        match map {
            HeaderMap::Request => self
                .request
                .iter()
                .find(|(n, _)| *n == name.as_str())
                .map(|(_, v)| v.as_slice()),
            HeaderMap::Response => self
                .response
                .iter()
                .find(|(n, _)| *n == name.as_str())
                .map(|(_, v)| v.as_bytes()),
            HeaderMap::ResponseTrailers => None,
        }
    }

    fn text(&self, field: TextField) -> Option<&[u8]> {
        Some(match field {
            TextField::Protocol => b"HTTP/1.1",
            TextField::RouteName => b"",
            TextField::UpstreamTransportFailureReason => {
                b"delayed connect error: Connection refused"
            }
            _ => return None,
        })
    }

    fn number(&self, field: NumberField) -> Option<u64> {
        Some(match field {
            NumberField::ResponseCode => 200,
            NumberField::BytesSent => 324,
            _ => return None,
        })
    }

    fn address(&self, field: AddressField) -> Option<SocketAddr> {
        match field {
            AddressField::UpstreamHost => self.host,
            AddressField::DownstreamRemote => "[2001:db8::1]:7".parse().ok(),
            AddressField::DownstreamLocal => "10.1.2.3:80".parse().ok(),
            _ => None,
        }
    }

    fn start_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_795_494_947, 224_740_000)
    }

    fn now(&self) -> SystemTime {
        self.start_time() + Duration::from_millis(2)
    }

    fn time_point(&self, point: TimePoint) -> Option<Duration> {
        Some(match point {
            TimePoint::DownstreamRxBegin => Duration::ZERO,
            TimePoint::DownstreamTxEnd => Duration::from_micros(1_900),
            TimePoint::UpstreamRxBegin => Duration::from_micros(1_200),
            _ => return None,
        })
    }

    fn response_flags(&self) -> ResponseFlags {
        self.flags
    }
}

fn text_of(format: &str) -> String {
    let mut out = Vec::new();
    Formatter::compile(format)
        .unwrap()
        .format(&Sample::new(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_format() {
    assert_eq!(
        text_of(crate::access_log::DEFAULT_FORMAT),
        "[2026-11-24T04:35:47.224Z] \"GET /x?q=1&e=%20a%3D&q=2 HTTP/1.1\" 200 - 0 324 1 1 \"-\" \"-\" \"-\" \"h\" \
         \"127.0.0.1:23101\"\n"
    );
}

#[test]
fn operators_print_as_envoy_prints_them() {
    let cases = [
        ("%PATH%", "/x?q=1&e=%20a%3D&q=2"),
        ("%PATH(NQ)%", "/x"),
        ("%PATH(WQ:PATH)%", "/y?q=1&e=%20a%3D&q=2"),
        ("%PATH:3%", "/x?"),
        ("%QUERY_PARAM(q)%", "1"),
        ("%QUERY_PARAM(e)%", " a="),
        ("%QUERY_PARAM(no)%", "-"),
        ("%QUERY_PARAMS%", "q=1&e=%20a%3D&q=2"),
        ("%QUERY_PARAMS(DECODED)%", "q=1&e= a=&q=2"),
        ("%REQ(x-empty)%", ""),
        ("%REQ(x-long):4%", "abcd"),
        ("%REQ(X-NO?X-LONG)%", "abcdefgh"),
        ("%REQ(?x-long)%", "abcdefgh"),
        ("%ROUTE_NAME%", "-"),
        ("%RESPONSE_FLAGS%", "-"),
        ("%CUSTOM_FLAGS%", ""),
        ("%UPSTREAM_CONNECTION_ID%", "0"),
        ("%UPSTREAM_CONNECTION_IDS_ATTEMPTED%", "-"),
        (
            "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
            "delayed_connect_error:_Connection_refused",
        ),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "[2001:db8::1]:7"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "2001:db8::1"),
        ("%DOWNSTREAM_REMOTE_PORT%", "7"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", "10.1.2.3:80"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(16)%", "10.1.0.0/16"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(200)%", "10.1.2.3"),
        ("%UPSTREAM_LOCAL_ADDRESS%", "-"),
        ("%UPSTREAM_HOST_NAME%", "127.0.0.1:23101"),
        ("%UPSTREAM_HOST_NAME_WITHOUT_PORT%", "127.0.0.1"),
        ("%RESP(:status)%", "200"),
        (
            "%DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION%",
            "1 1 0 -",
        ),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "1900"),
        ("%EMIT_TIME(%3f)%", "226"),
        (
            "%GRPC_STATUS% %DOWNSTREAM_TLS_VERSION% %DYNAMIC_METADATA(a)%",
            "- - -",
        ),
        ("100%%", "100%"),
    ];
    for (format, expected) in cases {
        assert_eq!(text_of(format), expected, "{format}");
    }
}

#[test]
fn header_values_omit_what_is_missing() {
    let mut out = Vec::new();
    Formatter::compile_omitting_empty("[%REQ(no)%]")
        .unwrap()
        .format(&Sample::new(), &mut out);
    assert_eq!(out, b"[]");
}
