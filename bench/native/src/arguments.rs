//! `--name value` arguments: all that two small tools need.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// The arguments of a tool, each asked for once.
#[derive(Debug)]
pub struct Arguments {
    pub positional: Vec<String>,
    named: HashMap<String, String>,
}

impl Arguments {
    /// Reads `--name value` pairs and bare words; an error names the argument.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut positional = Vec::new();
        let mut named = HashMap::new();
        let mut words = words;
        while let Some(word) = words.next() {
            if let Some(name) = word.strip_prefix("--") {
                let value = words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value"))?;
                if named.insert(name.to_owned(), value).is_some() {
                    return Err(format!("{word} given twice"));
                }
            } else {
                positional.push(word);
            }
        }
        Ok(Self { positional, named })
    }

    /// Takes an argument, or the default.
    pub fn take<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> Result<T, String> {
        match self.named.remove(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|error| format!("--{name} {text}: {error}")),
        }
    }

    /// Takes an argument that must be there.
    pub fn need<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T, String> {
        let text = self
            .named
            .remove(name)
            .ok_or_else(|| format!("--{name} is missing"))?;
        text.parse()
            .map_err(|error| format!("--{name} {text}: {error}"))
    }

    /// Fails if an argument was given that nobody took.
    pub fn finish(self) -> Result<(), String> {
        match self.named.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("--{name}: no such argument")),
        }
    }
}
