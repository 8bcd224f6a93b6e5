//! What requests want of the TLS of their connections, kept once for all pools that have it in common.
//!
//! A request says it in borrowed form ([`TlsWish`]) and finds its pool without allocating; what is kept of it goes with the
//! last pool that has it. This module must not know what a pool is.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::transport::TlsOptions;

/// [`TlsOptions`] as a request has them: in its own headers and in the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsWish<'a> {
    /// Takes the place of the configured `sni`.
    pub(crate) server_name: Option<&'a str>,
    /// The name that the certificate must have, in place of the configured matchers.
    pub(crate) subject_alt_name: Option<&'a str>,
    /// Takes the place of the configured `alpn_protocols`, where it is not empty.
    pub(crate) alpn: &'a [Arc<str>],
}

impl TlsWish<'_> {
    fn hash(&self) -> u64 {
        let alpn = self.alpn.iter().map(|name| name.as_bytes());
        hash_of(self.server_name, self.subject_alt_name, alpn)
    }

    fn is(&self, options: &TlsOptions) -> bool {
        let alpn = options.alpn.iter().map(|name| &**name);
        self.server_name == options.server_name.as_deref()
            && self.subject_alt_name == options.subject_alt_name.as_deref()
            && self.alpn.iter().map(|name| name.as_bytes()).eq(alpn)
    }

    fn keep(&self) -> TlsOptions {
        TlsOptions {
            server_name: self.server_name.map(Box::from),
            subject_alt_name: self.subject_alt_name.map(Box::from),
            alpn: self
                .alpn
                .iter()
                .map(|name| Box::from(name.as_bytes()))
                .collect(),
        }
    }
}

fn hash_of<'a>(
    server_name: Option<&str>,
    subject_alt_name: Option<&str>,
    alpn: impl Iterator<Item = &'a [u8]>,
) -> u64 {
    let mut hasher = FxHasher::default();
    server_name.hash(&mut hasher);
    subject_alt_name.hash(&mut hasher);
    alpn.for_each(|name| name.hash(&mut hasher));
    hasher.finish()
}

fn hash_of_kept(options: &TlsOptions) -> u64 {
    hash_of(
        options.server_name.as_deref(),
        options.subject_alt_name.as_deref(),
        options.alpn.iter().map(|name| &**name),
    )
}

/// Tells apart what is wanted, among what is wanted at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WishId(u64);

struct Kept {
    id: WishId,
    options: Rc<TlsOptions>,
    pools: usize,
}

/// All that is wanted of the TLS of a worker's pools.
#[derive(Default)]
pub(super) struct Wishes {
    kept: HashTable<Kept>,
    next: u64,
}

impl Wishes {
    /// Whether some pool has been asked for this; no pool's identity has an id that is not kept.
    pub(super) fn find(&self, wish: &TlsWish<'_>) -> Option<WishId> {
        let kept = self.kept.find(wish.hash(), |kept| wish.is(&kept.options))?;
        Some(kept.id)
    }

    /// For one more pool.
    pub(super) fn keep(&mut self, wish: &TlsWish<'_>) -> (WishId, Rc<TlsOptions>) {
        let hash = wish.hash();
        if let Some(kept) = self.kept.find_mut(hash, |kept| wish.is(&kept.options)) {
            kept.pools += 1;
            return (kept.id, Rc::clone(&kept.options));
        }
        let (id, options) = (WishId(self.next), Rc::new(wish.keep()));
        self.next += 1;
        let kept = Kept {
            id,
            options: Rc::clone(&options),
            pools: 1,
        };
        self.kept
            .insert_unique(hash, kept, |kept| hash_of_kept(&kept.options));
        (id, options)
    }

    /// One pool less.
    pub(super) fn release(&mut self, id: WishId, options: &TlsOptions) {
        let found = self
            .kept
            .find_entry(hash_of_kept(options), |kept| kept.id == id);
        if let Ok(mut entry) = found {
            entry.get_mut().pools -= 1;
            if entry.get().pools == 0 {
                entry.remove();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{TlsWish, Wishes};

    #[test]
    fn equal_wishes_are_kept_once_and_as_long_as_a_pool_has_them() {
        let alpn: [Arc<str>; 2] = [Arc::from("istio"), Arc::from("h2")];
        let own = String::from("a.test");
        let wish = |name, alpn| TlsWish {
            server_name: Some(name),
            subject_alt_name: None,
            alpn,
        };
        let mut wishes = Wishes::default();
        assert_eq!(wishes.find(&wish("a.test", &alpn)), None);
        let (first, options) = wishes.keep(&wish("a.test", &alpn));
        let (again, same) = wishes.keep(&wish(&own, &alpn));
        assert_eq!(first, again);
        assert!(std::rc::Rc::ptr_eq(&options, &same));
        assert_eq!(options.alpn.len(), 2);
        assert_eq!(wishes.find(&wish("a.test", &alpn)), Some(first));
        for other in [wish("b.test", &alpn), wish("a.test", &alpn[..1])] {
            assert_eq!(wishes.find(&other), None);
        }
        // The same name, wanted of the certificate instead of sent.
        let validated = TlsWish {
            server_name: None,
            subject_alt_name: Some("a.test"),
            alpn: &alpn,
        };
        let (second, other) = wishes.keep(&validated);
        assert_ne!(first, second);
        wishes.release(first, &options);
        assert_eq!(wishes.find(&wish("a.test", &alpn)), Some(first));
        wishes.release(first, &options);
        assert_eq!(wishes.find(&wish("a.test", &alpn)), None);
        wishes.release(second, &other);
        assert!(wishes.is_empty());
    }

    #[test]
    fn many_are_found_again() {
        let names: Vec<String> = (0..1000)
            .map(|number| format!("host-{number}.test"))
            .collect();
        let wish = |name| TlsWish {
            server_name: Some(name),
            subject_alt_name: Some(name),
            alpn: &[],
        };
        let mut wishes = Wishes::default();
        let kept: Vec<_> = names.iter().map(|name| wishes.keep(&wish(name))).collect();
        for (name, (id, options)) in names.iter().zip(&kept) {
            assert_eq!(wishes.find(&wish(name)), Some(*id));
            wishes.release(*id, options);
            assert_eq!(wishes.find(&wish(name)), None);
        }
        assert!(wishes.is_empty());
    }
}
