//! Names of a certificate against what is demanded of them.

use std::net::IpAddr;

use regex::bytes::Regex;
use tidegate_model::matcher::{StringMatcher, StringPattern};
use tidegate_model::tls::{SanType, SubjectAltNameMatcher};

use crate::error::TlsError;
use crate::info::CertificateInfo;

/// `SubjectAltNameMatcher`, compiled.
#[derive(Debug)]
pub(crate) struct SanMatcher {
    kind: SanType,
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Box<Regex>),
}

impl SanMatcher {
    pub(crate) fn new(matcher: &SubjectAltNameMatcher) -> Result<Self, TlsError> {
        let StringMatcher {
            pattern,
            ignore_case,
        } = &matcher.matcher;
        let text = |text: &str| -> Box<str> {
            if *ignore_case {
                text.to_ascii_lowercase().into()
            } else {
                text.into()
            }
        };
        let pattern = match pattern {
            StringPattern::Exact(exact) => Pattern::Exact(text(exact)),
            StringPattern::Prefix(prefix) => Pattern::Prefix(text(prefix)),
            StringPattern::Suffix(suffix) => Pattern::Suffix(text(suffix)),
            StringPattern::Contains(part) => Pattern::Contains(text(part)),
            StringPattern::SafeRegex(regex) => Regex::new(&format!("^(?:{regex})$"))
                .map(|regex| Pattern::Regex(Box::new(regex)))
                .map_err(|error| TlsError::configuration(error.to_string()))?,
        };
        Ok(Self {
            kind: matcher.kind.clone(),
            pattern,
            ignore_case: *ignore_case,
        })
    }

    pub(crate) fn matches(&self, certificate: &CertificateInfo) -> bool {
        let any = |names: &[Box<str>]| names.iter().any(|name| self.text(name));
        match &self.kind {
            SanType::Uri => any(&certificate.uri_sans),
            SanType::Email => any(&certificate.email_sans),
            // An exact DNS name is matched by a wildcard of the certificate.
            SanType::Dns => match &self.pattern {
                Pattern::Exact(wanted) => certificate
                    .dns_sans
                    .iter()
                    .any(|name| self.text(name) || dns_matches(wanted, name)),
                _ => any(&certificate.dns_sans),
            },
            SanType::IpAddress => certificate
                .ip_sans
                .iter()
                .any(|ip: &IpAddr| self.text(&ip.to_string())),
            SanType::OtherName(oid) => certificate
                .other_sans
                .iter()
                .any(|(known, value)| **known == **oid && self.text(value)),
        }
    }

    fn text(&self, value: &str) -> bool {
        let lower;
        let value = if self.ignore_case {
            lower = value.to_ascii_lowercase();
            &lower
        } else {
            value
        };
        match &self.pattern {
            Pattern::Exact(text) => value == &**text,
            Pattern::Prefix(text) => value.starts_with(&**text),
            Pattern::Suffix(text) => value.ends_with(&**text),
            Pattern::Contains(text) => value.contains(&**text),
            Pattern::Regex(regex) => regex.is_match(value.as_bytes()),
        }
    }
}

/// Whether a certificate's name, maybe a wildcard, covers a name. The star stands for one label, or a part of one that
/// is not an IDNA label.
pub(crate) fn dns_matches(name: &str, pattern: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    if name == pattern {
        return true;
    }
    let (Some((label, name_rest)), Some((star, rest))) =
        (name.split_once('.'), pattern.split_once('.'))
    else {
        return false;
    };
    // A star has at least two labels behind it, and stands in the first.
    let Some((before, after)) = star.split_once('*') else {
        return false;
    };
    if after.contains('*') || !rest.contains('.') || name_rest != rest {
        return false;
    }
    if star != "*" && (label.starts_with("xn--") || star.starts_with("xn--")) {
        return false;
    }
    label.len() >= before.len() + after.len() + usize::from(star == "*")
        && label.starts_with(before)
        && label.ends_with(after)
}

/// Names of which one must be there, whatever its kind (`verify_subject_alt_name` of old, and what a request
/// overrides).
pub(crate) fn any_listed(certificate: &CertificateInfo, wanted: &[Box<str>]) -> bool {
    let equal = |name: &str| wanted.iter().any(|wanted| **wanted == *name);
    certificate
        .dns_sans
        .iter()
        .any(|name| wanted.iter().any(|wanted| dns_matches(wanted, name)))
        || certificate.uri_sans.iter().any(|name| equal(name))
        || certificate.email_sans.iter().any(|name| equal(name))
        || certificate.ip_sans.iter().any(|ip| equal(&ip.to_string()))
        || certificate.other_sans.iter().any(|(_, name)| equal(name))
}
