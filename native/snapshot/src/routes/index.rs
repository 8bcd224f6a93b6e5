//! Finding the first matching route among many without trying them all.
//!
//! Every route is filed under its most selective simple condition: an exact path, a path prefix, a header value, or a path
//! expression. A request looks up the few lists it can possibly match and verifies their members; the lowest position whose
//! every condition holds wins, so the outcome is that of the plain scan. What fits nowhere is tried in order.

use rustc_hash::FxHashMap;

use super::action::CompiledRoute;
use super::lazy_regex_set::LazyRegexSet;
use super::path_match::{PathKind, subject};
use super::trie::Trie;
use crate::header_name::HeaderName;
use crate::request::{RequestView, any_value};
use crate::runtime::Runtime;

/// From here on an index beats the scan.
const ENOUGH_ROUTES: usize = 24;
/// Expressions are dearer than prefixes.
const ENOUGH_REGEXES: usize = 6;
/// More routes than this under one path are told apart by a header, if they have one to tell them apart by.
const CROWDED: u32 = 4;
/// Each indexed header name costs a look-up per request.
const MOST_HEADER_NAMES: usize = 8;

/// Positions of routes, ascending.
type Positions = Vec<u32>;

#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    ignore_path_parameters: bool,
    exact: FxHashMap<Box<[u8]>, Positions>,
    prefixes: Trie<Positions>,
    /// Conditions that ignore case, in lower case.
    folded: Trie<Positions>,
    headers: Vec<HeaderIndex>,
    regexes: Option<RegexIndex>,
    others: Positions,
}

#[derive(Debug)]
struct HeaderIndex {
    name: HeaderName,
    by_value: FxHashMap<Box<[u8]>, Positions>,
}

#[derive(Debug)]
struct RegexIndex {
    set: LazyRegexSet,
    /// Expression to route.
    positions: Positions,
}

/// The lowest position found so far.
struct Best<'a, R> {
    routes: &'a [CompiledRoute],
    request: &'a R,
    path: &'a [u8],
    random: u64,
    runtime: &'a Runtime,
    position: u32,
}

impl<R: RequestView> Best<'_, R> {
    /// Tries a list up to the first hit, or to what is already no better.
    #[inline]
    fn consider(&mut self, positions: &[u32]) {
        for position in positions {
            if *position >= self.position {
                return;
            }
            let Some(route) = self.routes.get(*position as usize) else {
                return;
            };
            let path_matches = match route.path.kind {
                PathKind::Connect => route.path.matches(self.request),
                _ => route.path.matches_subject(self.path),
            };
            if path_matches && route.matches_besides_path(self.request, self.random, self.runtime) {
                self.position = *position;
                return;
            }
        }
    }

    /// A route whose path is known to match.
    #[inline]
    fn consider_matched(&mut self, position: u32) {
        if position < self.position
            && let Some(route) = self.routes.get(position as usize)
            && route.matches_besides_path(self.request, self.random, self.runtime)
        {
            self.position = position;
        }
    }
}

impl RouteIndex {
    /// `None`: few enough to try one after the other.
    pub(super) fn compile(routes: &[CompiledRoute]) -> Option<Self> {
        let regexes = routes
            .iter()
            .filter(|route| matches!(route.path.kind, PathKind::Regex(_)))
            .count();
        if routes.len() < ENOUGH_ROUTES && regexes < ENOUGH_REGEXES {
            return None;
        }
        Some(Self::build(routes))
    }

    /// Whether the routes' expressions are all in one automaton.
    pub(super) fn has_regex_set(&self) -> bool {
        self.regexes.is_some()
    }

    fn build(routes: &[CompiledRoute]) -> Self {
        let mut index = Self {
            ignore_path_parameters: routes
                .first()
                .is_some_and(|route| route.path.ignores_parameters()),
            ..Self::default()
        };
        let plan = Plan::new(routes);
        let mut patterns: Vec<&str> = Vec::new();
        let mut pattern_positions = Positions::new();
        for (position, route) in routes.iter().enumerate() {
            let position = position as u32;
            if let Some((header, value)) = plan.header_for(route) {
                index.file_under_header(header, value, position);
                continue;
            }
            let text = path_text(route).unwrap_or_default();
            match (&route.path.kind, route.path.case_sensitive) {
                (PathKind::Exact(_), true) => {
                    index
                        .exact
                        .entry(text.as_bytes().into())
                        .or_default()
                        .push(position);
                }
                (PathKind::Root | PathKind::Prefix(_) | PathKind::SeparatedPrefix(_), true) => {
                    let slot = index.prefixes.slot(text.as_bytes());
                    slot.get_or_insert_default().push(position);
                }
                (
                    PathKind::Exact(_)
                    | PathKind::Root
                    | PathKind::Prefix(_)
                    | PathKind::SeparatedPrefix(_),
                    false,
                ) => {
                    let slot = index.folded.slot(text.to_ascii_lowercase().as_bytes());
                    slot.get_or_insert_default().push(position);
                }
                (PathKind::Regex(_), _) => {
                    patterns.push(text);
                    pattern_positions.push(position);
                }
                (PathKind::Connect, _) => index.others.push(position),
            }
        }
        match LazyRegexSet::compile(&patterns) {
            _ if patterns.is_empty() => {}
            Some(set) => {
                index.regexes = Some(RegexIndex {
                    set,
                    positions: pattern_positions,
                });
            }
            None => {
                index.others.extend_from_slice(&pattern_positions);
                index.others.sort_unstable();
            }
        }
        index
    }

    fn file_under_header(&mut self, name: &HeaderName, value: &[u8], position: u32) {
        let known = self.headers.iter().position(|entry| entry.name == *name);
        let at = known.unwrap_or_else(|| {
            self.headers.push(HeaderIndex {
                name: name.clone(),
                by_value: FxHashMap::default(),
            });
            self.headers.len() - 1
        });
        if let Some(entry) = self.headers.get_mut(at) {
            entry
                .by_value
                .entry(value.into())
                .or_default()
                .push(position);
        }
    }

    pub(super) fn find<'r>(
        &self,
        routes: &'r [CompiledRoute],
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<&'r CompiledRoute> {
        let path = subject(request.path(), self.ignore_path_parameters);
        let mut best = Best {
            routes,
            request,
            path,
            random,
            runtime,
            position: u32::MAX,
        };
        if !self.exact.is_empty()
            && let Some(positions) = self.exact.get(path)
        {
            best.consider(positions);
        }
        if !self.prefixes.is_empty() {
            self.prefixes
                .walk(path.iter().copied(), |positions| best.consider(positions));
        }
        if !self.folded.is_empty() {
            let lower = path.iter().map(u8::to_ascii_lowercase);
            self.folded
                .walk(lower, |positions| best.consider(positions));
        }
        for header in &self.headers {
            any_value(request, &header.name, |value| {
                if let Some(positions) = header.by_value.get(value) {
                    best.consider(positions);
                }
                // Every value may lead to a better route.
                false
            });
        }
        if let Some(regexes) = &self.regexes
            && regexes
                .positions
                .first()
                .is_some_and(|first| *first < best.position)
        {
            let outcome = regexes.set.matches(path, |pattern| {
                if let Some(position) = regexes.positions.get(pattern) {
                    best.consider_matched(*position);
                }
            });
            if outcome.is_err() {
                best.consider(&regexes.positions);
            }
        }
        best.consider(&self.others);
        routes.get(best.position as usize)
    }
}

/// The text of a route's path condition.
fn path_text(route: &CompiledRoute) -> Option<&str> {
    use tidegate_model::route::PathSpecifier as P;
    match &route.config.matches.path {
        P::Prefix(text) | P::Path(text) | P::SafeRegex(text) | P::PathSeparatedPrefix(text) => {
            Some(text)
        }
        P::ConnectMatcher => None,
    }
}

/// Decides which routes are better found by a header's value than by their path.
struct Plan<'a> {
    crowd: FxHashMap<&'a str, u32>,
    values: FxHashMap<(&'a HeaderName, &'a str), u32>,
    names: Vec<&'a HeaderName>,
}

impl<'a> Plan<'a> {
    fn new(routes: &'a [CompiledRoute]) -> Self {
        let mut plan = Self {
            crowd: FxHashMap::default(),
            values: FxHashMap::default(),
            names: Vec::new(),
        };
        for route in routes {
            if let Some(text) = path_text(route) {
                *plan.crowd.entry(text).or_default() += 1;
            }
            for (name, value) in exact_headers(route) {
                *plan.values.entry((name, value)).or_default() += 1;
            }
        }
        let mut uses: FxHashMap<&HeaderName, u32> = FxHashMap::default();
        for route in routes {
            if let Some((name, _)) = plan.choose(route, |_| true) {
                *uses.entry(name).or_default() += 1;
            }
        }
        let mut names: Vec<(&HeaderName, u32)> = uses.into_iter().collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_str().cmp(b.0.as_str())));
        names.truncate(MOST_HEADER_NAMES);
        plan.names = names.into_iter().map(|(name, _)| name).collect();
        plan
    }

    fn header_for(&self, route: &'a CompiledRoute) -> Option<(&'a HeaderName, &'a [u8])> {
        self.choose(route, |name| self.names.contains(&name))
            .map(|(name, value)| (name, value.as_bytes()))
    }

    /// The rarest exact header condition, for a route whose path is shared by many.
    fn choose(
        &self,
        route: &'a CompiledRoute,
        allowed: impl Fn(&HeaderName) -> bool,
    ) -> Option<(&'a HeaderName, &'a str)> {
        let crowd = self.crowd.get(path_text(route)?).copied().unwrap_or(0);
        if crowd <= CROWDED {
            return None;
        }
        exact_headers(route)
            .filter(|(name, _)| allowed(name))
            .min_by_key(|key| self.values.get(key).copied().unwrap_or(0))
            .filter(|key| self.values.get(key).is_some_and(|count| *count < crowd))
    }
}

fn exact_headers(route: &CompiledRoute) -> impl Iterator<Item = (&HeaderName, &str)> {
    route
        .header_conditions()
        .iter()
        .filter_map(|header| Some((header.name(), &**header.exact_text()?)))
}
