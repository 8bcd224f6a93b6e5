use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::*;
use crate::log_context::{AddressField, HeaderMap, NumberField, TextField, TimePoint};
use crate::response_flags::ResponseFlags;

/// Request headers that change as Envoy's map of headers it has no fixed place for.
#[derive(Default)]
struct Headers(Vec<(String, String)>);

impl Headers {
    fn lines(&self) -> String {
        let mut lines = String::new();
        for (name, value) in &self.0 {
            lines.push_str(&[name.as_str(), ": ", value, "\n"].concat());
        }
        lines
    }
}

impl HeaderEdit for Headers {
    fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(n, _)| n == name.as_str())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(n, _)| n != name.as_str());
    }

    fn remove_matching(&mut self, names: &CompiledString) {
        self.0.retain(|(n, _)| !names.matches(n.as_bytes()));
    }

    fn append(&mut self, name: &HeaderName, value: &[u8]) {
        let value = String::from_utf8(value.to_vec()).unwrap();
        self.0.push((name.as_str().to_owned(), value));
    }

    fn set(&mut self, name: &HeaderName, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }
}

impl LogContext for Headers {
    fn header(&self, map: HeaderMap, name: &HeaderName) -> Option<&[u8]> {
        let found = self.0.iter().find(|(n, _)| n == name.as_str());
        found
            .filter(|_| map == HeaderMap::Request)
            .map(|(_, value)| value.as_bytes())
    }

    fn text(&self, _: TextField) -> Option<&[u8]> {
        None
    }

    fn number(&self, _: NumberField) -> Option<u64> {
        None
    }

    fn address(&self, _: AddressField) -> Option<SocketAddr> {
        None
    }

    fn start_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn time_point(&self, _: TimePoint) -> Option<Duration> {
        None
    }

    fn response_flags(&self) -> ResponseFlags {
        ResponseFlags::NONE
    }
}

fn add(name: &str, value: &str, append_action: AppendAction) -> HeaderValueOption {
    HeaderValueOption {
        name: name.into(),
        value: value.into(),
        append_action,
        keep_empty_value: false,
    }
}

fn level(tag: &str) -> HeaderMutator {
    HeaderMutator::compile(&HeaderMutations {
        request_add: vec![
            add("x-lev", tag, AppendAction::AppendIfExistsOrAdd),
            add("x-over", tag, AppendAction::OverwriteIfExistsOrAdd),
            add("x-abs", tag, AppendAction::AddIfAbsent),
            add("x-ife", tag, AppendAction::OverwriteIfExists),
        ],
        request_remove: vec![format!("x-rm-{tag}").into()],
        ..HeaderMutations::default()
    })
    .unwrap()
}

fn applied(most_specific_wins: bool) -> String {
    let (wc, rt, vh, rc) = (level("wc"), level("rt"), level("vh"), level("rc"));
    let levels = HeaderLevels {
        weighted_cluster: Some(&wc),
        route: &rt,
        virtual_host: &vh,
        route_configuration: &rc,
        most_specific_wins,
    };
    let mut headers = Headers::default();
    for (name, value) in [
        ("x-over", "o"),
        ("x-ife", "o"),
        ("x-rm-rt", "1"),
        ("x-rm-wc", "1"),
    ] {
        headers.0.push((name.to_owned(), value.to_owned()));
    }
    levels.apply_request(&mut headers, &mut HeaderScratch::default());
    headers.lines()
}

/// The lines are those that Envoy 1.40 sent upstream for the same four levels.
#[test]
fn levels_apply_in_envoys_order() {
    assert_eq!(
        applied(false),
        "x-lev: wc\nx-abs: wc\nx-lev: rt\nx-lev: vh\nx-over: rc\nx-ife: rc\nx-lev: rc\n"
    );
    assert_eq!(
        applied(true),
        "x-lev: wc\nx-abs: wc\nx-lev: rc\nx-lev: vh\nx-over: rt\nx-ife: rt\nx-lev: rt\n"
    );
}

/// Also recorded: values and existence are as they were before the level began.
#[test]
fn one_level_sees_the_headers_as_they_were() {
    use AppendAction as A;

    let ops = HeaderOps::compile(
        &[
            add("x-a", "1", A::AppendIfExistsOrAdd),
            add("x-a", "%REQ(x-a)%-2", A::OverwriteIfExistsOrAdd),
            add("x-b", "%REQ(x-a)%", A::AppendIfExistsOrAdd),
            add("x-e", "%REQ(none)%", A::AppendIfExistsOrAdd),
            HeaderValueOption {
                keep_empty_value: true,
                ..add("x-e2", "%REQ(none)%", A::AppendIfExistsOrAdd)
            },
            add("x-e3", "[%REQ(none)%]", A::AppendIfExistsOrAdd),
            add("x-c", "1", A::AppendIfExistsOrAdd),
            add("x-c", "2", A::AddIfAbsent),
            add("x-d", "2", A::AddIfAbsent),
            add("x-d", "1", A::AppendIfExistsOrAdd),
            add("x-p", "%% %UPSTREAM_CLUSTER%", A::AppendIfExistsOrAdd),
        ],
        &[],
    )
    .unwrap();
    let mut headers = Headers(vec![("x-a".to_owned(), "orig".to_owned())]);
    ops.apply(&mut headers, &mut HeaderScratch::default());
    assert_eq!(
        headers.lines(),
        "x-a: orig-2\nx-a: 1\nx-b: orig\nx-e2: \nx-e3: []\nx-c: 1\nx-c: 2\nx-d: 2\nx-d: 1\nx-p: % \n"
    );
}
