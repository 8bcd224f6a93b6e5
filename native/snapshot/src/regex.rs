//! Regular expressions as Envoy uses them (RE2): whole-value matching and substitution, with size limits.

use regex::bytes::{Regex, RegexBuilder};

use crate::error::CompileError;

/// The most memory that one expression may compile to.
const SIZE_LIMIT: usize = 4 << 20;
const DFA_SIZE_LIMIT: usize = 2 << 20;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct CompiledRegex {
    regex: Regex,
}

impl CompiledRegex {
    /// An expression that must match the whole value.
    pub fn full_match(pattern: &str) -> Result<Self, CompileError> {
        // `\A` and `\z` outside the group: a flag or an alternation inside cannot loosen them.
        let anchored = format!(r"\A(?:{pattern})\z");
        Ok(Self {
            regex: build(&anchored)?,
        })
    }

    /// An expression that may match anywhere, for rewrites.
    pub fn search(pattern: &str) -> Result<Self, CompileError> {
        Ok(Self {
            regex: build(pattern)?,
        })
    }

    #[inline]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    pub(crate) fn regex(&self) -> &Regex {
        &self.regex
    }
}

/// RE2's classes (`\w`, `\d`, `\s`) are ASCII, so Unicode is off unless the expression cannot do without (`\pL`, `[é]`).
fn build(pattern: &str) -> Result<Regex, CompileError> {
    let attempt = |unicode: bool| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(DFA_SIZE_LIMIT)
            .build()
    };
    attempt(false)
        .or_else(|_| attempt(true))
        .map_err(|error| CompileError::new("", error.to_string()))
}

/// A `RegexMatchAndSubstitute` with its substitution split into literals and groups.
#[derive(Debug, Clone)]
pub struct RegexRewriter {
    regex: CompiledRegex,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(Vec<u8>),
    Group(usize),
}

impl RegexRewriter {
    pub fn compile(rewrite: &tidegate_model::route::RegexRewrite) -> Result<Self, CompileError> {
        let regex = CompiledRegex::search(&rewrite.regex).map_err(|e| e.within("pattern.regex"))?;
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = rewrite.substitution.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                literal.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => literal.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    let group = usize::from(digit - b'0');
                    if group >= regex.regex.captures_len() {
                        return Err(CompileError::new(
                            "substitution",
                            format!("group \\{group} is not in the pattern"),
                        ));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Group(group));
                }
                _ => {
                    return Err(CompileError::new(
                        "substitution",
                        "a backslash must be followed by a digit or a backslash",
                    ));
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { regex, parts })
    }

    /// Replaces every match, RE2's `GlobalReplace`, appending the result to `out`.
    pub fn replace_all(&self, value: &[u8], out: &mut Vec<u8>) {
        let mut done = 0;
        for captures in self.regex.regex().captures_iter(value) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            out.extend_from_slice(value.get(done..whole.start()).unwrap_or_default());
            for part in &self.parts {
                match part {
                    Part::Literal(text) => out.extend_from_slice(text),
                    Part::Group(group) => {
                        if let Some(found) = captures.get(*group) {
                            out.extend_from_slice(found.as_bytes());
                        }
                    }
                }
            }
            done = whole.end();
        }
        out.extend_from_slice(value.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::Name;
    use tidegate_model::route::RegexRewrite;

    #[test]
    fn full_match_means_the_whole_value() {
        let regex = CompiledRegex::full_match("a|ab").unwrap();
        assert!(regex.is_match(b"ab") && regex.is_match(b"a"));
        assert!(!regex.is_match(b"abc") && !regex.is_match(b"ab\n"));
        assert!(
            !CompiledRegex::full_match(r"\w")
                .unwrap()
                .is_match("é".as_bytes())
        );
        assert!(
            CompiledRegex::full_match(r"\pL")
                .unwrap()
                .is_match("é".as_bytes())
        );
        assert!(CompiledRegex::full_match("(").is_err());
    }

    #[test]
    fn substitutions_use_re2s_backslashes() {
        let rewrite = RegexRewrite {
            regex: Name::from("^/service/([^/]+)(/.*)$"),
            substitution: Name::from(r"\2/instance/\1\\"),
        };
        let mut out = Vec::new();
        RegexRewriter::compile(&rewrite)
            .unwrap()
            .replace_all(b"/service/foo/v1/api", &mut out);
        assert_eq!(out, br"/v1/api/instance/foo\");
        let mut bad = rewrite;
        bad.substitution = Name::from(r"\3");
        assert!(RegexRewriter::compile(&bad).is_err());
    }
}
