//! Tag extraction: which parts of a metric's name become labels.
//!
//! Envoy's default rules are written out by hand, because they run for every metric of every scrape; rules of the bootstrap
//! are regular expressions. Each rule looks at the whole name and takes some of it away.

use std::ops::Range;

use fancy_regex::Regex;

/// How names are split into a base name and labels.
#[derive(Debug, Clone)]
pub struct TagRules {
    defaults: bool,
    /// Those that may concern any name, then those that begin with a word: Envoy asks in this order.
    rules: [Vec<Rule>; 2],
}

/// A rule of the bootstrap.
#[derive(Debug, Clone)]
struct Rule {
    label: Box<str>,
    value: RuleValue,
}

#[derive(Debug, Clone)]
enum RuleValue {
    Regex(Box<Regex>),
    Fixed(Box<str>),
}

impl Default for TagRules {
    fn default() -> Self {
        Self {
            defaults: true,
            rules: Default::default(),
        }
    }
}

impl TagRules {
    /// With Envoy's default rules, or only with those added later.
    pub fn new(defaults: bool) -> Self {
        Self {
            defaults,
            ..Self::default()
        }
    }

    /// The first group leaves the name, the second (or else the first) is the label's value. Envoy takes ECMAScript's
    /// expressions here, look-ahead included, and only here.
    pub fn add_regex(&mut self, name: &str, pattern: &str) -> Result<(), String> {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        let value = RuleValue::Regex(Box::new(regex));
        self.add(name, value, begins_with_word(pattern));
        Ok(())
    }

    /// A label that every metric has.
    pub fn add_fixed(&mut self, name: &str, value: &str) {
        self.add(name, RuleValue::Fixed(value.into()), false);
    }

    fn add(&mut self, label: &str, value: RuleValue, late: bool) {
        let [early_rules, late_rules] = &mut self.rules;
        let rules = if late { late_rules } else { early_rules };
        rules.push(Rule {
            label: label.into(),
            value,
        });
    }

    /// The name without what became labels, and the labels.
    pub fn extract<'a>(&'a self, name: &'a str) -> Extracted<'a> {
        let mut found = Found {
            name,
            labels: Vec::new(),
            removed: Vec::new(),
        };
        let [early, late] = &self.rules;
        if self.defaults {
            found.response_code();
        }
        found.apply(early);
        if self.defaults {
            found.apply_defaults();
        }
        found.apply(late);
        let base = found.base();
        Extracted {
            base,
            labels: found.labels,
        }
    }
}

/// `^word\.…`, or `^word$`: such a rule is asked only about names whose first part is the word.
fn begins_with_word(pattern: &str) -> bool {
    let Some(rest) = pattern.strip_prefix('^') else {
        return false;
    };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    after.len() < rest.len()
        && (after.starts_with(r"\.") || after.starts_with(r"(?=\.)") || after == "$")
}

#[derive(Debug, PartialEq, Eq)]
pub struct Extracted<'a> {
    pub base: String,
    pub labels: Vec<(&'a str, &'a str)>,
}

struct Found<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    removed: Vec<Range<usize>>,
}

impl<'a> Found<'a> {
    /// Those that begin with a word, in Envoy's order, which is the order of the labels.
    fn apply_defaults(&mut self) {
        if let Some(rest) = self.name.strip_prefix("cluster.") {
            self.grpc(rest);
            self.segment("envoy.cluster_name", rest);
        } else if let Some(rest) = self.name.strip_prefix("http.") {
            self.segment("envoy.http_conn_manager_prefix", rest);
            self.route_config(rest);
        } else if let Some(rest) = self.name.strip_prefix("tcp.") {
            self.segment("envoy.tcp_prefix", rest);
        } else if let Some(rest) = self.name.strip_prefix("listener.") {
            self.listener(rest);
        } else if let Some(rest) = self.name.strip_prefix("vhost.") {
            if let Some((_, virtual_cluster)) = rest.split_once(".vcluster.") {
                self.segment("envoy.virtual_cluster", virtual_cluster);
            }
            self.segment("envoy.virtual_host", rest);
        } else if let Some(rest) = self.name.strip_prefix("server.") {
            self.worker(rest);
        }
    }

    fn apply(&mut self, rules: &'a [Rule]) {
        for rule in rules {
            let label = &*rule.label;
            if self.labels.iter().any(|(known, _)| *known == label) {
                continue;
            }
            match &rule.value {
                RuleValue::Fixed(value) => self.labels.push((label, value)),
                RuleValue::Regex(regex) => {
                    if let Ok(Some(captures)) = regex.captures(self.name)
                        && let Some(removed) = captures.get(1)
                    {
                        let value = captures.get(2).unwrap_or(removed);
                        self.labels.push((label, value.as_str()));
                        self.removed.push(removed.range());
                    }
                }
            }
        }
    }

    fn offset(&self, part: &str) -> usize {
        part.as_ptr().addr() - self.name.as_ptr().addr()
    }

    /// `_rq_404` at the end loses `_404`, `_rq_4xx` loses the `4`.
    fn response_code(&mut self) {
        let Some(at) = self.name.len().checked_sub(7) else {
            return;
        };
        let Some(code) = self
            .name
            .get(at..)
            .and_then(|tail| tail.strip_prefix("_rq_"))
        else {
            return;
        };
        let end = self.name.len();
        if code.bytes().all(|byte| byte.is_ascii_digit()) {
            self.labels.push(("envoy.response_code", code));
            self.removed.push(end - 4..end);
        } else if let Some(class) = code.strip_suffix("xx")
            && class.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.labels.push(("envoy.response_code_class", class));
            self.removed.push(end - 3..end - 2);
        }
    }

    /// Takes the segment up to the next dot.
    fn segment(&mut self, label: &'static str, rest: &'a str) {
        if let Some((value, tail)) = rest.split_once('.')
            && !tail.is_empty()
        {
            let start = self.offset(rest);
            self.labels.push((label, value));
            self.removed.push(start..start + value.len() + 1);
        }
    }

    /// `http.PREFIX.rds.NAME.` with dots in the name allowed.
    fn route_config(&mut self, rest: &'a str) {
        if let Some((_, tail)) = rest.split_once(".rds.")
            && let Some((name, _)) = tail.rsplit_once('.')
        {
            let start = self.offset(name);
            self.labels.push(("envoy.rds_route_config", name));
            self.removed.push(start..start + name.len() + 1);
        }
    }

    /// `cluster.NAME.grpc.SERVICE.METHOD.`, where neither name has dots, to the letter: with a service `a.B`, `a` is the
    /// service and `B` the method.
    fn grpc(&mut self, rest: &'a str) {
        let Some((_, tail)) = rest.split_once('.') else {
            return;
        };
        let Some(service) = tail.strip_prefix("grpc.") else {
            return;
        };
        if let Some((_, method)) = service.split_once('.') {
            self.segment("envoy.grpc_bridge_method", method);
        }
        self.segment("envoy.grpc_bridge_service", service);
    }

    fn worker(&mut self, rest: &'a str) {
        if let Some(tail) = rest.strip_prefix("worker_")
            && let Some((id, _)) = tail.split_once('.')
        {
            let start = self.offset(id);
            self.labels.push(("envoy.worker_id", id));
            self.removed.push(start..start + id.len() + 1);
        }
    }

    /// An address has digits, dots, underscores, brackets and hexadecimal letters; other names (`admin`) are no label.
    fn listener(&mut self, rest: &'a str) {
        if let Some((_, tail)) = rest.split_once(".http.") {
            self.segment("envoy.http_conn_manager_prefix", tail);
        }
        if let Some((_, tail)) = rest.split_once(".worker_") {
            let start = self.offset(tail);
            if let Some((id, _)) = tail.split_once('.') {
                self.labels.push(("envoy.worker_id", id));
                self.removed.push(start..start + id.len() + 1);
            }
        }
        let v4 = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'_');
        let v6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'[' | b']' | b'_');
        let end = [prefix_of(rest, v4), prefix_of(rest, v6)]
            .into_iter()
            .filter_map(|run| {
                // The longest run that ends before a dot.
                if rest.as_bytes().get(run) == Some(&b'.') {
                    Some(run)
                } else {
                    rest.get(..run).and_then(|run| run.rfind('.'))
                }
            })
            .max();
        if let Some(end) = end
            && let Some(address) = rest.get(..end)
        {
            let start = self.offset(rest);
            self.labels.push(("envoy.listener_address", address));
            self.removed.push(start..start + end + 1);
        }
    }

    fn base(&self) -> String {
        let mut base = String::with_capacity(self.name.len());
        for (at, character) in self.name.char_indices() {
            if !self.removed.iter().any(|range| range.contains(&at)) {
                base.push(character);
            }
        }
        base
    }
}

fn prefix_of(text: &str, accepts: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|&byte| accepts(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(name: &str) -> String {
        let rules = TagRules::default();
        let extracted = rules.extract(name);
        format!("{} {:?}", extracted.base, extracted.labels)
    }

    /// Each checked against Envoy 1.40.
    #[test]
    fn default_rules() {
        for (name, expected) in [
            (
                "cluster.a.upstream_rq_total",
                r#"cluster.upstream_rq_total [("envoy.cluster_name", "a")]"#,
            ),
            (
                "cluster.outbound|9080||x.default.svc.bind_errors",
                r#"cluster.default.svc.bind_errors [("envoy.cluster_name", "outbound|9080||x")]"#,
            ),
            (
                "cluster.a.external.upstream_rq_404",
                r#"cluster.external.upstream_rq [("envoy.response_code", "404"), ("envoy.cluster_name", "a")]"#,
            ),
            (
                "http.in.downstream_rq_2xx",
                r#"http.downstream_rq_xx [("envoy.response_code_class", "2"), ("envoy.http_conn_manager_prefix", "in")]"#,
            ),
            (
                "listener.127.0.0.1_80.http.in.downstream_rq_2xx",
                r#"listener.http.downstream_rq_xx [("envoy.response_code_class", "2"), ("envoy.http_conn_manager_prefix", "in"), ("envoy.listener_address", "127.0.0.1_80")]"#,
            ),
            (
                "listener.127.0.0.1_80.worker_0.downstream_cx_total",
                r#"listener.worker_downstream_cx_total [("envoy.worker_id", "0"), ("envoy.listener_address", "127.0.0.1_80")]"#,
            ),
            (
                "listener.[__1]_80.downstream_cx_total",
                r#"listener.downstream_cx_total [("envoy.listener_address", "[__1]_80")]"#,
            ),
            (
                "listener.admin.downstream_cx_total",
                "listener.admin.downstream_cx_total []",
            ),
            (
                "tcp.p.idle_timeout",
                r#"tcp.idle_timeout [("envoy.tcp_prefix", "p")]"#,
            ),
            (
                "server.worker_1.watchdog_miss",
                r#"server.worker_watchdog_miss [("envoy.worker_id", "1")]"#,
            ),
            ("server.live", "server.live []"),
            (
                "cluster.a.grpc.pkg.Svc.Echo.total",
                r#"cluster.grpc.Echo.total [("envoy.grpc_bridge_method", "Svc"), ("envoy.grpc_bridge_service", "pkg"), ("envoy.cluster_name", "a")]"#,
            ),
            (
                "cluster.a.grpc.Svc.Echo.0",
                r#"cluster.grpc.0 [("envoy.grpc_bridge_method", "Echo"), ("envoy.grpc_bridge_service", "Svc"), ("envoy.cluster_name", "a")]"#,
            ),
            (
                "cluster.a.grpc.total",
                r#"cluster.grpc.total [("envoy.cluster_name", "a")]"#,
            ),
            (
                "cluster.a.http2.rx_reset",
                r#"cluster.http2.rx_reset [("envoy.cluster_name", "a")]"#,
            ),
        ] {
            assert_eq!(default(name), expected, "{name}");
        }
    }

    #[test]
    fn rules_of_the_bootstrap() {
        let mut rules = TagRules::new(false);
        rules
            .add_regex(
                "cluster_name",
                r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)",
            )
            .unwrap();
        rules
            .add_regex(
                "listener",
                r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*))\.)",
            )
            .unwrap();
        rules.add_fixed("mesh", "m");
        let extracted = rules.extract("cluster.outbound|80||a.b.svc.cluster.local.upstream_rq_200");
        assert_eq!(extracted.base, "cluster.upstream_rq_200");
        assert_eq!(
            extracted.labels,
            [
                ("mesh", "m"),
                ("cluster_name", "outbound|80||a.b.svc.cluster.local")
            ]
        );
    }
}
