use super::*;

fn operator(text: &str) -> Operator {
    match parse(text).unwrap().as_slice() {
        [FormatItem::Operator(op)] => op.operator.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn literals_percent_signs_and_operators_keep_their_order() {
    let items = parse("a%%b %REQ(X-A?:PATH):12% c").unwrap();
    assert_eq!(
        items,
        vec![
            FormatItem::Literal(Name::from("a%b ")),
            FormatItem::Operator(FormatOperator {
                operator: Operator::Header {
                    map: HeaderMap::Request,
                    main: Name::from("x-a"),
                    alternative: Some(Name::from(":path")),
                },
                max_length: Some(12),
            }),
            FormatItem::Literal(Name::from(" c")),
        ]
    );
}

#[test]
fn envoys_default_format_parses() {
    let text = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
                %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
                \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
                \"%UPSTREAM_HOST%\"\n";
    assert!(parse(text).is_ok());
}

#[test]
fn what_envoy_refuses_is_refused() {
    for bad in [
        "%",
        "a %",
        "%REQ(A%",
        "%req(a)%",
        "%NO_SUCH%",
        "%REQ(A?B?C)%",
        "%REQ%",
        "%PROTOCOL(x)%",
        "%GRPC_STATUS(x)%",
        "%COMMON_DURATION(a)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:s)%",
        "%REQ(X):a%",
        "%PROTOCOL:3%",
        "%START_TIME:3%",
        "%PATH(X)%",
        "%QUERY_PARAMS(x)%",
        "%VIRTUAL_HOST_NAME%",
        "%ENVIRONMENT()%",
        "%REQUESTED_SERVER_NAME(HOST)%",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_envoy_takes_is_taken() {
    for good in [
        "%PROTOCOL()%",
        "%REQ(?b)%",
        "%REQ(a?)%",
        "%RESP(x):0%",
        "%PATH:3%",
        "%QUERY_PARAMS:5%",
        "%COMMON_DURATION(DS_RX_BEG:FOO:ms)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%",
        "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(x)%",
        "%RESPONSE_CODE_DETAILS(x)%",
        "%REQUEST_HEADER(a?b):4%",
        "%START_TIME()%",
        "%UPSTREAM_HOST_NAME_WITHOUT_PORT%",
        "%DOWNSTREAM_DIRECT_REMOTE_PORT%",
        "%UPSTREAM_LOCAL_PORT%",
        "%TLS_JA4_FINGERPRINT%",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    assert_eq!(
        operator("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%"),
        Operator::Address(AddressField::DownstreamRemote, AddressPart::Network(16))
    );
    assert_eq!(
        operator("%UPSTREAM_REMOTE_ADDRESS%"),
        Operator::Address(AddressField::UpstreamRemote, AddressPart::Whole)
    );
}

#[test]
fn time_formats() {
    let Operator::Time { format, .. } = operator("%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z %s)%") else {
        panic!("not a time");
    };
    assert!(format.items.contains(&TimeItem::Subsecond(3)));
    assert!(format.items.contains(&TimeItem::EpochSeconds));
    assert_eq!(parse_time_format("").unwrap().items, vec![]);
    assert!(parse_time_format("%n").is_err());
}
