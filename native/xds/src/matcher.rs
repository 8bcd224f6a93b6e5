//! String, header and query parameter matchers, regular expressions, fractions and other small shared messages.

use regex::Regex;
use tidegate_model::matcher::{
    HeaderMatchSpecifier, HeaderMatcher, QueryParameterMatchSpecifier, QueryParameterMatcher,
    StringMatcher, StringPattern,
};
use tidegate_model::route::RegexRewrite;
use tidegate_model::{DataSource, Fraction, Name, RuntimeFraction};

use crate::context::Result;
use crate::fields::Fields;
use crate::message::Value;

/// `type.matcher.v3.StringMatcher`.
pub(crate) fn string(fields: &Fields<'_>) -> Result<StringMatcher> {
    let pattern = if let Some(regex) = fields.opt("safe_regex", regex)? {
        StringPattern::SafeRegex(regex)
    } else if fields.has("exact") {
        StringPattern::Exact(fields.string("exact"))
    } else if fields.has("prefix") {
        StringPattern::Prefix(fields.string("prefix"))
    } else if fields.has("suffix") {
        StringPattern::Suffix(fields.string("suffix"))
    } else if fields.has("contains") {
        StringPattern::Contains(fields.string("contains"))
    } else {
        return Err(fields.fault("custom", "is not supported"));
    };
    let ignore_case = fields.bool("ignore_case");
    if ignore_case && matches!(pattern, StringPattern::SafeRegex(_)) {
        return Err(fields.fault("ignore_case", "ignore_case has no effect for safe_regex"));
    }
    Ok(StringMatcher {
        pattern,
        ignore_case,
    })
}

/// `type.matcher.v3.RegexMatcher`: the expression, known to compile.
pub(crate) fn regex(fields: &Fields<'_>) -> Result<Name> {
    fields.ignore(
        &["google_re2"],
        "RE2 syntax is what there is; the program size is bounded by the engine",
    );
    let regex = fields.str("regex");
    check_regex(fields, regex)?;
    Ok(Name::from(regex))
}

/// Refuses a message's field `regex` when the expression does not compile.
pub(crate) fn check_regex(fields: &Fields<'_>, regex: &str) -> Result<()> {
    match Regex::new(regex) {
        Ok(_) => Ok(()),
        Err(error) => Err(fields.fault(
            "regex",
            format!("Invalid regex '{regex}': {}", one_line(&error)),
        )),
    }
}

/// The last line of a `regex` error says what is wrong; those before it draw the expression.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// `type.matcher.v3.RegexMatchAndSubstitute`.
pub(crate) fn regex_rewrite(fields: &Fields<'_>) -> Result<RegexRewrite> {
    let expression = fields.need("pattern", regex)?;
    let substitution = fields.string("substitution");
    let groups = Regex::new(&expression).map_or(0, |regex| regex.captures_len());
    check_substitution(&substitution, groups)
        .map_err(|reason| fields.fault("substitution", reason))?;
    Ok(RegexRewrite {
        regex: expression,
        substitution,
    })
}

/// RE2's rules: a backslash stands before a digit (a group that exists) or another backslash.
fn check_substitution(substitution: &str, groups: usize) -> std::result::Result<(), String> {
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit @ '0'..='9') => {
                let group = digit.to_digit(10).unwrap_or_default() as usize;
                if group >= groups {
                    return Err(format!(
                        "Rewrite schema requests {group} matches, but the regexp only has {} parenthesized subexpressions",
                        groups.saturating_sub(1)
                    ));
                }
            }
            Some(_) => {
                return Err(
                    "invalid rewrite pattern: '\\' must be followed by a digit or '\\'".to_owned(),
                );
            }
            None => return Err("invalid rewrite pattern: '\\' not allowed at end".to_owned()),
        }
    }
    Ok(())
}

/// `config.route.v3.HeaderMatcher`.
pub(crate) fn header(fields: &Fields<'_>) -> Result<HeaderMatcher> {
    Ok(HeaderMatcher {
        name: lower(fields.str("name")),
        specifier: header_specifier(fields)?,
        invert_match: fields.bool("invert_match"),
        treat_missing_header_as_empty: fields.bool("treat_missing_header_as_empty"),
    })
}

fn header_specifier(fields: &Fields<'_>) -> Result<HeaderMatchSpecifier> {
    if let Some(matcher) = fields.opt("string_match", string)? {
        return Ok(HeaderMatchSpecifier::String(matcher));
    }
    if let Some(regex) = fields.opt("safe_regex_match", regex)? {
        return Ok(plain(StringPattern::SafeRegex(regex)));
    }
    let range = fields.opt("range_match", |range| {
        Ok(HeaderMatchSpecifier::Range {
            start: range.int("start"),
            end: range.int("end"),
        })
    })?;
    if let Some(range) = range {
        return Ok(range);
    }
    type Make = fn(Name) -> StringPattern;
    let deprecated: [(&str, Make); 4] = [
        ("exact_match", StringPattern::Exact),
        ("prefix_match", StringPattern::Prefix),
        ("suffix_match", StringPattern::Suffix),
        ("contains_match", StringPattern::Contains),
    ];
    for (name, make) in deprecated {
        if fields.has(name) {
            return Ok(plain(make(fields.string(name))));
        }
    }
    // Nothing at all asks for presence, as Envoy has it.
    Ok(HeaderMatchSpecifier::Present(
        fields.opt_bool("present_match").unwrap_or(true),
    ))
}

fn plain(pattern: StringPattern) -> HeaderMatchSpecifier {
    HeaderMatchSpecifier::String(StringMatcher {
        pattern,
        ignore_case: false,
    })
}

/// `config.route.v3.QueryParameterMatcher`.
pub(crate) fn query_parameter(fields: &Fields<'_>) -> Result<QueryParameterMatcher> {
    let specifier = match fields.opt("string_match", string)? {
        Some(matcher) => QueryParameterMatchSpecifier::String(matcher),
        None => {
            QueryParameterMatchSpecifier::Present(fields.opt_bool("present_match").unwrap_or(true))
        }
    };
    Ok(QueryParameterMatcher {
        name: fields.string("name"),
        specifier,
    })
}

/// `type.v3.FractionalPercent`; more than the whole is the whole.
pub(crate) fn fraction(fields: &Fields<'_>) -> Result<Fraction> {
    let scale = fields.choice(
        "denominator",
        &[("HUNDRED", 10_000), ("TEN_THOUSAND", 100), ("MILLION", 1)],
    )?;
    let per_million = fields.u32("numerator").saturating_mul(scale).min(1_000_000);
    Ok(Fraction { per_million })
}

/// `config.core.v3.RuntimeFractionalPercent`.
pub(crate) fn runtime_fraction(fields: &Fields<'_>) -> Result<RuntimeFraction> {
    Ok(RuntimeFraction {
        default: fields.need("default_value", fraction)?,
        runtime_key: fields.opt_string("runtime_key"),
    })
}

/// `config.core.v3.DataSource`, its file or environment variable read.
pub(crate) fn data_source(fields: &Fields<'_>) -> Result<DataSource> {
    let bytes: Vec<u8> = if fields.has("filename") {
        let path = fields.str("filename");
        std::fs::read(path)
            .map_err(|error| fields.fault("filename", format!("Invalid path: {path}: {error}")))?
    } else if fields.has("environment_variable") {
        let name = fields.str("environment_variable");
        let value = std::env::var(name);
        value
            .map_err(|_| {
                fields.fault(
                    "environment_variable",
                    format!("Environment variable doesn't exist: {name}"),
                )
            })?
            .into_bytes()
    } else if let Some(bytes) = fields.bytes("inline_bytes") {
        bytes.to_vec()
    } else {
        fields
            .get("inline_string")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into()
    };
    Ok(DataSource {
        bytes: bytes.into(),
    })
}

/// A header's name as it is compared.
pub(crate) fn lower(name: &str) -> Name {
    Name::from(name.to_ascii_lowercase())
}
