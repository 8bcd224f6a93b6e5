//! Runtime values: keys that override fractions and numbers of the configuration while the process runs.

use rustc_hash::FxHashMap;
use tidegate_model::{Fraction, Name, RuntimeFlag, RuntimeFraction};

/// The flattened runtime layers; immutable, a change makes a new snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    values: FxHashMap<Name, Name>,
}

impl Runtime {
    /// A later pair overrides an earlier one.
    pub fn new(values: impl IntoIterator<Item = (Name, Name)>) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        if self.values.is_empty() {
            return None;
        }
        self.values.get(key).map(|value| &**value)
    }

    pub fn integer(&self, key: &str, default: u64) -> u64 {
        self.get(key)
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(default)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.values.iter()
    }

    /// The fraction in force: an integer under the key means percent, as in Envoy.
    pub fn fraction(&self, fraction: &RuntimeFraction) -> Fraction {
        match &fraction.runtime_key {
            None => fraction.default,
            Some(key) => self.fraction_of(key, fraction.default),
        }
    }

    /// As [`Self::fraction`], under a key that no configuration names.
    pub fn fraction_of(&self, key: &str, default: Fraction) -> Fraction {
        self.get(key).and_then(parse_fraction).unwrap_or(default)
    }

    /// The switch in force: `true` or `false` under the key, as in Envoy.
    pub fn flag(&self, flag: &RuntimeFlag) -> bool {
        let over = flag.runtime_key.as_ref().and_then(|key| self.get(key));
        match over.map(str::trim) {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            _ => flag.default,
        }
    }

    /// Whether `random` falls into the fraction in force.
    #[inline]
    pub fn hits(&self, fraction: &RuntimeFraction, random: u64) -> bool {
        self.fraction(fraction).hits(random)
    }
}

/// `25`, or `numerator: 5, denominator: TEN_THOUSAND` in the flattened form of a struct value.
fn parse_fraction(text: &str) -> Option<Fraction> {
    let text = text.trim();
    if let Ok(percent) = text.parse::<u64>() {
        return Some(Fraction {
            per_million: (percent.min(100) * 10_000) as u32,
        });
    }
    if !text.contains("numerator") {
        return None;
    }
    let numerator: u64 = text
        .split_once("numerator")?
        .1
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()?;
    let scale = if text.contains("TEN_THOUSAND") {
        100
    } else if text.contains("MILLION") {
        1
    } else {
        10_000
    };
    Some(Fraction {
        per_million: (numerator.saturating_mul(scale)).min(1_000_000) as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraction(key: &str) -> RuntimeFraction {
        RuntimeFraction {
            default: Fraction { per_million: 7 },
            runtime_key: Some(Name::from(key)),
        }
    }

    #[test]
    fn integers_are_percent_and_structs_carry_their_denominator() {
        let runtime = Runtime::new([
            (Name::from("a"), Name::from("25")),
            (
                Name::from("b"),
                Name::from(r#"{"numerator":5,"denominator":"TEN_THOUSAND"}"#),
            ),
            (Name::from("c"), Name::from("nonsense")),
        ]);
        assert_eq!(runtime.fraction(&fraction("a")).per_million, 250_000);
        assert_eq!(runtime.fraction(&fraction("b")).per_million, 500);
        assert_eq!(runtime.fraction(&fraction("c")).per_million, 7);
        assert_eq!(runtime.fraction(&fraction("d")).per_million, 7);
        assert_eq!(runtime.integer("a", 3), 25);
    }
}
