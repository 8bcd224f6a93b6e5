//! Who is turned away, on which side, and in which words.

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tidegate_model::matcher::{StringMatcher, StringPattern};
use tidegate_model::tls::{SanType, SubjectAltNameMatcher, TlsVersion, ValidationContext};

use super::pki::{Leaf, Pki, dns, uri};
use super::{Pair, client_context, common, downstream, server_context, upstream};
use crate::Failure;

fn with_san(mut trust: ValidationContext, pattern: StringPattern) -> ValidationContext {
    trust.subject_alt_names.push(SubjectAltNameMatcher {
        kind: SanType::Uri,
        matcher: StringMatcher {
            pattern,
            ignore_case: false,
        },
    });
    trust
}

const VERIFY_FAILED: &str =
    "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED";
const ID: &str = "spiffe://cluster.local/ns/a/sa/b";

/// A name, the leaf, whether it is from the wrong CA, what is demanded, and what comes of it.
type Case = (
    &'static str,
    Leaf,
    bool,
    Option<StringPattern>,
    Option<(Failure, String)>,
);

fn cases() -> Vec<Case> {
    let leaf = |years, usages| Leaf {
        name: "leaf",
        sans: vec![uri(ID), dns("server.test")],
        usages,
        years,
    };
    let both = || vec![ServerAuth, ClientAuth];
    let now = (2020, 2090);
    let prefix = |text: &str| Some(StringPattern::Prefix(text.into()));
    let exact = |text: &str| Some(StringPattern::Exact(text.into()));
    let chain = |text: &str| {
        let at = "verify cert failed: X509_verify_cert: certificate verification error at depth 0";
        Some((Failure::VerifyError, format!("{at}: {text}")))
    };
    let san = format!("verify cert failed: SAN matcher, certificate SANs are [{ID}, server.test]");
    vec![
        ("good", leaf(now, both()), false, None, None),
        (
            "good prefix",
            leaf(now, both()),
            false,
            prefix("spiffe://cluster.local/"),
            None,
        ),
        ("good SAN", leaf(now, both()), false, exact(ID), None),
        ("no usages", leaf(now, Vec::new()), false, exact(ID), None),
        (
            "wrong CA",
            leaf(now, both()),
            true,
            None,
            chain("unable to get local issuer certificate"),
        ),
        (
            "wrong SAN",
            leaf(now, both()),
            false,
            exact("spiffe://cluster.local/ns/a/sa/c"),
            Some((Failure::VerifySan, san.clone())),
        ),
        (
            "wrong SAN prefix",
            leaf(now, both()),
            false,
            prefix("spiffe://other/"),
            Some((Failure::VerifySan, san.clone())),
        ),
        (
            "expired",
            leaf((2020, 2021), both()),
            false,
            None,
            chain("certificate has expired"),
        ),
        (
            "not yet valid",
            leaf((2080, 2090), both()),
            false,
            None,
            chain("certificate is not yet valid"),
        ),
        (
            "wrong EKU",
            leaf(now, vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning]),
            false,
            None,
            chain("unsupported certificate purpose"),
        ),
    ]
}

#[test]
fn both_sides_turn_away_what_envoy_turns_away() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for (name, leaf, wrong_ca, demanded, verdict) in cases() {
            let (ca, other) = (Pki::new(), Pki::named("other"));
            let shown = if wrong_ca { &other } else { &ca }.leaf(&leaf);
            let mut trust = ca.trust();
            if let Some(pattern) = demanded {
                trust = with_san(trust, pattern);
            }
            for client_shows in [true, false] {
                let mut theirs = common(
                    if client_shows {
                        vec![shown.clone()]
                    } else {
                        vec![ca.client()]
                    },
                    Some(if client_shows {
                        ca.trust()
                    } else {
                        trust.clone()
                    }),
                );
                theirs.params.max_version = Some(version);
                let own = common(
                    vec![if client_shows {
                        ca.server()
                    } else {
                        shown.clone()
                    }],
                    Some(if client_shows {
                        trust.clone()
                    } else {
                        ca.trust()
                    }),
                );
                let mut own = downstream(own);
                own.require_client_certificate = true;
                let client = client_context(upstream(theirs, "server.test"));
                let mut pair = Pair::new(&client, &server_context(own));
                let (client_end, server_end) = pair.shake();
                let (judge, other) = if client_shows {
                    (server_end, client_end)
                } else {
                    (client_end, server_end)
                };
                let case = format!("{name}, client shows: {client_shows}, {version:?}");
                match &verdict {
                    None => {
                        judge.unwrap_or_else(|error| panic!("{case}: {error}"));
                        other.unwrap_or_else(|error| panic!("{case}: {error}"));
                    }
                    Some((failure, details)) => {
                        let error = judge.expect_err(&case);
                        let reason = format!("{VERIFY_FAILED}:{details}:TLS_error_end");
                        assert_eq!(error.reason, reason, "{case}");
                        assert_eq!(error.failure, *failure, "{case}");
                        let judge = if client_shows {
                            &mut pair.server
                        } else {
                            &mut pair.client
                        };
                        let known = judge.failed_info().unwrap();
                        assert_eq!(&*known.peer.as_ref().unwrap().subject, "CN=leaf");
                        assert!(judge.info().is_none(), "{case}");
                        let other = other.expect_err(&case);
                        assert!(other.reason.contains("_ALERT_"), "{case}: {other}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_client_without_a_certificate() {
    let ca = Pki::new();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for required in [true, false] {
            let mut own = downstream(common(vec![ca.server()], Some(ca.trust())));
            own.require_client_certificate = required;
            let mut theirs = common(Vec::new(), Some(ca.trust()));
            theirs.params.max_version = Some(version);
            let client = client_context(upstream(theirs, "server.test"));
            let mut pair = Pair::new(&client, &server_context(own));
            let (client_end, server_end) = pair.shake();
            if required {
                let error = server_end.expect_err("refused");
                assert_eq!(error.failure, Failure::VerifyNoCert);
                assert!(error.reason.contains(
                    "268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not"
                ));
                client_end.expect_err("told");
            } else {
                client_end.unwrap();
                server_end.unwrap();
                let info = pair.server.info().unwrap();
                assert!(info.peer.is_none() && !info.validated);
            }
        }
    }
}

#[test]
fn versions_that_do_not_meet() {
    let ca = Pki::new();
    let mut own = common(vec![ca.server()], None);
    own.params.min_version = Some(TlsVersion::V1_3);
    let mut theirs = common(Vec::new(), Some(ca.trust()));
    theirs.params.max_version = Some(TlsVersion::V1_2);
    let client = client_context(upstream(theirs, "server.test"));
    let mut pair = Pair::new(&client, &server_context(downstream(own)));
    let (client_end, server_end) = pair.shake();
    assert!(
        server_end
            .expect_err("refused")
            .reason
            .contains("268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL")
    );
    assert!(
        client_end
            .expect_err("told")
            .reason
            .contains("TLSV1_ALERT_PROTOCOL_VERSION")
    );
}

#[test]
fn plain_http_is_told() {
    let ca = Pki::new();
    let context = server_context(downstream(common(vec![ca.server()], None)));
    let mut session = crate::Session::server(&context);
    let mut bytes = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let mut out = Vec::new();
    let error = super::deliver(&mut session, &mut bytes, &mut out).expect_err("no TLS");
    assert!(out.is_empty(), "an alert is no HTTP");
    assert_eq!(
        error.reason,
        "TLS_error:|268435612:SSL routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end"
    );
}
