//! Many whole-value expressions as one automaton: which of them match, in one pass over the value.
//!
//! The automaton is determinised lazily into a cache that belongs to the thread, so that reading needs no lock and unused
//! tables cost nothing. A cache dies with its automaton.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};
use rustc_hash::FxHashMap;

/// What a thread may keep of one automaton.
const CACHE_CAPACITY: usize = 8 << 20;
const NFA_SIZE_LIMIT: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct LazyRegexSet {
    dfa: DFA,
    id: u64,
    alive: Arc<()>,
}

/// The automaton could not be used for this value: try the expressions one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GaveUp;

struct Owned {
    alive: Weak<()>,
    cache: Cache,
}

thread_local! {
    static CACHES: RefCell<FxHashMap<u64, Owned>> = RefCell::default();
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl LazyRegexSet {
    /// `None` when the expressions need what a lazy automaton cannot do, or too much memory.
    pub(super) fn compile(patterns: &[&str]) -> Option<Self> {
        let mut parsed = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let parse = |unicode| {
                let config = syntax::Config::new().unicode(unicode).utf8(false);
                syntax::parse_with(pattern, &config).ok()
            };
            // The same choice as for single expressions: RE2's classes are ASCII.
            parsed.push(parse(false).or_else(|| parse(true))?);
        }
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(NFA_SIZE_LIMIT)),
            )
            .build_many_from_hir(&parsed)
            .ok()?;
        let dfa = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .cache_capacity(CACHE_CAPACITY)
                    .skip_cache_capacity_check(true),
            )
            .build_from_nfa(nfa)
            .ok()?;
        Some(Self {
            dfa,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            alive: Arc::default(),
        })
    }

    /// Calls `each` with the index of every expression that matches the whole value, in no particular order.
    pub(super) fn matches(&self, value: &[u8], each: impl FnMut(usize)) -> Result<(), GaveUp> {
        CACHES.with(|caches| {
            let mut caches = caches.try_borrow_mut().map_err(|_| GaveUp)?;
            if !caches.contains_key(&self.id) {
                caches.retain(|_, owned| owned.alive.strong_count() > 0);
            }
            let owned = caches.entry(self.id).or_insert_with(|| Owned {
                alive: Arc::downgrade(&self.alive),
                cache: self.dfa.create_cache(),
            });
            self.walk(&mut owned.cache, value, each)
        })
    }

    #[inline]
    fn walk(
        &self,
        cache: &mut Cache,
        value: &[u8],
        mut each: impl FnMut(usize),
    ) -> Result<(), GaveUp> {
        let input = Input::new(value).anchored(Anchored::Yes);
        let mut state = self
            .dfa
            .start_state_forward(cache, &input)
            .map_err(|_| GaveUp)?;
        for byte in value {
            state = self
                .dfa
                .next_state(cache, state, *byte)
                .map_err(|_| GaveUp)?;
            if state.is_tagged() {
                if state.is_dead() {
                    return Ok(());
                }
                if state.is_quit() {
                    return Err(GaveUp);
                }
            }
        }
        // Only what matches exactly up to the end is in this state: matches show one step late.
        let end = self.dfa.next_eoi_state(cache, state).map_err(|_| GaveUp)?;
        if end.is_match() {
            for index in 0..self.dfa.match_len(cache, end) {
                each(self.dfa.match_pattern(cache, end, index).as_usize());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(set: &LazyRegexSet, value: &str) -> Vec<usize> {
        let mut found = Vec::new();
        set.matches(value.as_bytes(), |index| found.push(index))
            .unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn all_whole_matches_are_reported() {
        let set =
            LazyRegexSet::compile(&["/a.*", "/ab", "/a|/abc", "^/[a-z]+$", r"/\d+", "(?i)/AB"])
                .unwrap();
        assert_eq!(matching(&set, "/ab"), [0, 1, 3, 5]);
        assert_eq!(matching(&set, "/abc"), [0, 2, 3]);
        assert_eq!(matching(&set, "/12"), [4]);
        assert_eq!(matching(&set, ""), Vec::<usize>::new());
    }

    #[test]
    fn caches_of_dropped_automata_go() {
        let first = LazyRegexSet::compile(&["a"]).unwrap();
        assert_eq!(matching(&first, "a"), [0]);
        let id = first.id;
        drop(first);
        let second = LazyRegexSet::compile(&["b"]).unwrap();
        assert_eq!(matching(&second, "b"), [0]);
        CACHES.with(|caches| assert!(!caches.borrow().contains_key(&id)));
    }
}
