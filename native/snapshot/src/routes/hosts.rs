//! Which virtual host a request is for: exact names by hash, wildcards by longest match.

use std::hash::Hasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxHasher;
use tidegate_model::Name;
use tidegate_model::route::VirtualHost;

use super::trie::Trie;
use crate::error::CompileError;

/// Domains to positions in the list of virtual hosts.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: ExactHosts,
    /// `*.example.com`, by its reversed suffix.
    suffixes: Trie<u32>,
    /// `www.*`, by its prefix.
    prefixes: Trie<u32>,
    any: Option<u32>,
}

/// Exact domains. Their texts are in one piece: requests that walk over ten thousand of them touch few pages.
#[derive(Debug, Default)]
struct ExactHosts {
    texts: Vec<u8>,
    table: HashTable<ExactHost>,
}

#[derive(Debug, Clone, Copy)]
struct ExactHost {
    start: u32,
    len: u32,
    position: u32,
}

impl ExactHost {
    fn text(self, texts: &[u8]) -> &[u8] {
        let start = self.start as usize;
        texts
            .get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text);
    hasher.finish()
}

impl ExactHosts {
    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// False, and nothing changed, when the text is there.
    fn insert(&mut self, text: &[u8], position: u32) -> bool {
        let Self { texts, table } = self;
        let same = |known: &ExactHost| known.text(texts) == text;
        match table.entry(hash(text), same, |known| hash(known.text(texts))) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(ExactHost {
                    start: texts.len() as u32,
                    len: text.len() as u32,
                    position,
                });
                texts.extend_from_slice(text);
                true
            }
        }
    }

    fn shrink(&mut self) {
        let Self { texts, table } = self;
        texts.shrink_to_fit();
        table.shrink_to_fit(|known| hash(known.text(texts)));
    }

    #[inline]
    fn get(&self, text: &[u8]) -> Option<u32> {
        let same = |known: &ExactHost| known.text(&self.texts) == text;
        self.table
            .find(hash(text), same)
            .map(|known| known.position)
    }
}

/// Longer authorities than this are lower-cased on the heap.
const INLINE: usize = 256;

impl HostTable {
    pub(super) fn compile(virtual_hosts: &[Arc<VirtualHost>]) -> Result<Self, CompileError> {
        let mut table = Self::default();
        for (position, host) in virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                table.insert(domain, position as u32).map_err(|reason| {
                    CompileError::new(format!("virtual_hosts[{position}].domains"), reason)
                })?;
            }
        }
        table.exact.shrink();
        Ok(table)
    }

    fn insert(&mut self, domain: &Name, position: u32) -> Result<(), String> {
        let lower = domain.to_ascii_lowercase();
        let duplicate = || {
            Err(format!(
                "Only unique values for domains are permitted. Duplicate entry of domain {domain}"
            ))
        };
        if lower == "*" {
            if self.any.replace(position).is_some() {
                return Err("Only a single wildcard domain is permitted".to_owned());
            }
        } else if let Some(suffix) = lower.strip_prefix('*') {
            let reversed: Vec<u8> = suffix.bytes().rev().collect();
            if self.suffixes.insert(&reversed, position).is_some() {
                return duplicate();
            }
        } else if let Some(prefix) = lower.strip_suffix('*') {
            if self.prefixes.insert(prefix.as_bytes(), position).is_some() {
                return duplicate();
            }
        } else if !self.exact.insert(lower.as_bytes(), position) {
            return duplicate();
        }
        Ok(())
    }

    /// `host` in any case, ports already stripped where they are to be.
    #[inline]
    pub(super) fn find(&self, host: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any.map(|position| position as usize);
        }
        let position = if !host.iter().any(u8::is_ascii_uppercase) {
            self.find_lower(host)
        } else if host.len() <= INLINE {
            let mut buffer = [0_u8; INLINE];
            let lower = buffer.get_mut(..host.len())?;
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            self.find_lower(lower)
        } else {
            self.find_lower(&host.to_ascii_lowercase())
        };
        position.map(|position| position as usize)
    }

    fn find_lower(&self, host: &[u8]) -> Option<u32> {
        if let Some(position) = self.exact.get(host) {
            return Some(position);
        }
        // A wildcard stands for at least one character.
        let longest = host.len().saturating_sub(1);
        if !self.suffixes.is_empty()
            && let Some(position) = self.suffixes.longest(host.iter().rev().copied(), longest)
        {
            return Some(*position);
        }
        if !self.prefixes.is_empty()
            && let Some(position) = self.prefixes.longest(host.iter().copied(), longest)
        {
            return Some(*position);
        }
        self.any
    }
}

/// Where the port's colon is in an authority, as Envoy finds it: the last colon, unless it is inside brackets.
pub fn port_start(authority: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', authority)?;
    match memchr::memrchr(b']', authority) {
        Some(bracket) if bracket > colon => None,
        _ => Some(colon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_where_they_are() {
        assert_eq!(port_start(b"a.com:80"), Some(5));
        assert_eq!(port_start(b"[::1]:80"), Some(5));
        assert_eq!(port_start(b"[::1]"), None);
        assert_eq!(port_start(b"a.com"), None);
        assert_eq!(port_start(b"a.com:"), Some(5));
    }
}
