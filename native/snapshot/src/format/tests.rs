use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tidegate_model::format::{AddressField, NumberField, TimePoint};

use super::*;
use crate::response_flags::ResponseFlags;

/// A request as Envoy 1.40 logged it, in owned values.
pub(crate) struct Sample {
    pub(crate) request: Vec<(&'static str, Vec<u8>)>,
    pub(crate) response: Vec<(&'static str, &'static str)>,
    pub(crate) trailers: Vec<(&'static str, &'static str)>,
    pub(crate) status: u64,
    pub(crate) message_counts: Option<(u64, u64)>,
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
            trailers: Vec::new(),
            status: 200,
            message_counts: None,
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
            HeaderMap::ResponseTrailers => self
                .trailers
                .iter()
                .find(|(n, _)| *n == name.as_str())
                .map(|(_, v)| v.as_bytes()),
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
            NumberField::ResponseCode => self.status,
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

    fn grpc_message_counts(&self) -> Option<(u64, u64)> {
        self.message_counts
    }
}

fn text_of(format: &str) -> String {
    text_about(format, &Sample::new())
}

fn text_about(format: &str, sample: &Sample) -> String {
    let mut out = Vec::new();
    Formatter::compile(format).unwrap().format(sample, &mut out);
    String::from_utf8(out).unwrap()
}

impl Sample {
    /// A gRPC call, its HTTP status and its `grpc-status`.
    pub(crate) fn call(status: u64, grpc_status: Option<&'static str>) -> Self {
        let mut sample = Self::new();
        sample
            .request
            .push(("content-type", b"application/grpc".to_vec()));
        sample.status = status;
        sample
            .response
            .extend(grpc_status.map(|status| ("grpc-status", status)));
        sample
    }
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

/// Each as Envoy 1.40 printed it.
#[test]
fn grpc_statuses() {
    const FORMAT: &str =
        "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%";
    for (status, grpc_status, expected) in [
        (200, Some("0"), "OK OK 0 0"),
        (200, Some("00"), "OK OK 0 0"),
        (200, Some("5"), "NotFound NOT_FOUND 5 5"),
        (200, Some("17"), "17 17 17 17"),
        (
            200,
            Some("1234567890123"),
            "1234567890123 1234567890123 1234567890123 1234567890123",
        ),
        (200, Some("abc"), "-1 -1 -1 -1"),
        (200, Some("-1"), "-1 -1 -1 -1"),
        (200, Some(""), "Unknown UNKNOWN 2 2"),
        (200, None, "Unknown UNKNOWN 2 2"),
        (404, Some("0"), "OK OK 0 0"),
        (400, None, "Internal INTERNAL 13 13"),
        (429, None, "Unavailable UNAVAILABLE 14 14"),
        (503, None, "Unavailable UNAVAILABLE 14 14"),
        (0, None, "- - - -"),
    ] {
        let call = Sample::call(status, grpc_status);
        assert_eq!(
            text_about(FORMAT, &call),
            expected,
            "{status} {grpc_status:?}"
        );
    }
    let mut call = Sample::call(200, Some("5"));
    call.trailers = vec![("grpc-status", "1"), ("x-t", "v")];
    assert_eq!(
        text_about("%GRPC_STATUS% %TRAILER(X-T)% %TRAILER(x-u)%", &call),
        "Canceled v -"
    );
    call.request.pop();
    assert_eq!(text_about("%GRPC_STATUS%", &call), "-");
}

#[test]
fn grpc_message_counts() {
    const FORMAT: &str = "%FILTER_STATE(envoy.filters.http.grpc_stats)% \
         %FILTER_STATE(envoy.filters.http.grpc_stats:TYPED):20% %FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN):2% \
         %FILTER_STATE(envoy.filters.http.grpc_stats:FIELD:request_message_count)% %FILTER_STATE(other)%";
    let mut call = Sample::call(200, Some("0"));
    assert_eq!(text_about(FORMAT, &call), "- - - - -");
    call.message_counts = Some((1, 1));
    assert_eq!(
        text_about(FORMAT, &call),
        r#"{"requestMessageCount":"1","responseMessageCount":"1"} {"requestMessageCoun 1, - -"#
    );
    call.message_counts = Some((0, 2));
    assert_eq!(
        text_about("%FILTER_STATE(envoy.filters.http.grpc_stats)%", &call),
        r#"{"responseMessageCount":"2"}"#
    );
    for (bad, why) in [
        ("%FILTER_STATE(a:FOO)%", "only support PLAIN/TYPED/FIELD."),
        (
            "%FILTER_STATE(a:FIELD)%",
            "FIELD should be used with the field name.",
        ),
        (
            "%FILTER_STATE(a:TYPED:x)%",
            "FIELD should be used with the field name.",
        ),
        ("%FILTER_STATE%", "FILTER_STATE requires parameters"),
    ] {
        let error = Formatter::compile(bad).expect_err(bad);
        assert!(error.reason.contains(why), "{error}");
    }
}
