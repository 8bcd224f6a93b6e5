use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::*;

/// A stream that has headers and nothing else.
#[derive(Default)]
struct Plain {
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    log: Rc<RefCell<Vec<String>>>,
}

impl Host for Plain {
    fn each_value(&self, _: List, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        let named = self.headers.iter().filter(|(other, _)| other == name);
        named.for_each(|(_, value)| each(value));
    }

    fn each_header(&self, _: List, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.headers
            .iter()
            .for_each(|(name, value)| each(name, value));
    }

    fn add(&mut self, _: List, name: &[u8], value: &[u8]) {
        self.headers.push((name.to_vec(), value.to_vec()));
    }

    fn set(&mut self, list: List, name: &[u8], value: &[u8]) {
        self.remove(list, name);
        self.add(list, name, value);
    }

    fn remove(&mut self, _: List, name: &[u8]) {
        self.headers.retain(|(other, _)| other != name);
    }

    fn set_length(&mut self, _: usize) {}

    fn set_reason(&mut self, _: &[u8]) {}

    fn touched(&mut self) {}

    fn text(&self, _: Text) -> Cow<'_, str> {
        Cow::Borrowed("text")
    }

    fn metadata(&self, _: Metadata) -> Option<&Map<String, Value>> {
        None
    }

    fn dynamic(&self, _: &str) -> Option<Cow<'_, Map<String, Value>>> {
        None
    }

    fn dynamic_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn set_dynamic(&mut self, _: &str, key: &str, value: Value) {
        self.log.borrow_mut().push(format!("{key}={value}"));
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn ssl_text(&self, _: SslText) -> String {
        String::new()
    }

    fn ssl_list(&self, _: SslList) -> Vec<String> {
        Vec::new()
    }

    fn ssl_number(&self, _: SslNumber) -> i64 {
        0
    }

    fn log(&self, _: Level, text: &[u8]) {
        self.log
            .borrow_mut()
            .push(String::from_utf8_lossy(text).into_owned());
    }
}

/// Runs `body` as the request's function and says what it has logged, and how it ended.
fn run(body: &str) -> (Vec<String>, Step) {
    let (log, step, _) = begin(body);
    (log, step)
}

fn begin(body: &str) -> (Vec<String>, Step, (Run<Plain>, Box<Plain>)) {
    let source = format!("function envoy_on_request(handle)\n{body}\nend");
    let script = Script::<Plain>::load(source.as_bytes()).unwrap();
    let run = script.begin(Side::Request, false).unwrap();
    let host = Box::<Plain>::default();
    let log = Rc::clone(&host.log);
    let (host, step) = run.resume(host, Event::Start);
    let lines = log.borrow().clone();
    (lines, step, (run, host))
}

#[test]
fn headers() {
    let (log, step) = run(r#"
        local headers = handle:headers()
        headers:add("X-A", "1")
        headers:add("x-a", 2)
        handle:logInfo(headers:get("x-a") .. " " .. headers:getNumValues("x-A") .. " " .. headers:getAtIndex("x-a", 1))
        headers:replace("x-a", "3")
        for key, value in pairs(headers) do handle:logInfo(key .. "=" .. value) end
        headers:remove("x-a")
        handle:logInfo(tostring(headers:get("x-a")))
    "#);
    assert_eq!(step, Step::Failed("[string \"function envoy_on_request(handle)...\"]:10: bad argument #1 to 'tostring' (value expected)".to_owned()));
    assert_eq!(log, ["1,2 2 2", "x-a=3"]);
}

#[test]
fn errors_are_strings_with_a_place() {
    let (log, step) = run(r#"
        local ok, why = pcall(function() handle:headers():add("a") end)
        handle:logInfo(type(why) .. " " .. why)
        handle:headers():add("a b", "c")
    "#);
    let place = "[string \"function envoy_on_request(handle)...\"]";
    assert_eq!(
        log,
        [format!(
            "string {place}:3: bad argument #2 to 'add' (string expected, got no value)"
        )]
    );
    assert_eq!(
        step,
        Step::Failed(format!("{place}:5: invalid header name"))
    );
    let (_, step) = run("coroutine.yield()");
    assert_eq!(
        step,
        Step::Failed("script performed an unexpected yield".to_owned())
    );
    let (_, step) = run("handle:verifySignature()");
    assert_eq!(
        step,
        Step::Failed(format!("{place}:2: verifySignature() is not supported"))
    );
}

#[test]
fn sources() {
    assert_eq!(check(b"function f() end"), Ok(()));
    assert_eq!(
        check(b"bad").unwrap_err(),
        "[string \"bad\"]:1: '=' expected near '<eof>'"
    );
    assert_eq!(
        check(b"error('no')").unwrap_err(),
        "[string \"error('no')\"]:1: no"
    );
    assert_eq!(
        check(b"require('ffi')").unwrap_err(),
        "ffi is not supported: it is not memory safe"
    );
    let script = Script::<Plain>::load(b"x = 1").unwrap();
    assert!(script.begin(Side::Request, true).is_none());
}

#[test]
fn bodies() {
    let (_, step, (run, host)) = begin(
        r#"
        local old = handle:headers()
        local body = handle:body()
        handle:logInfo(body:length() .. body:getBytes(1, 2))
        body:setBytes("new")
        handle:logInfo(body:length())
        old:add("a", "b")
    "#,
    );
    assert_eq!(step, Step::Waits(Wait::Body));
    let log = Rc::clone(&host.log);
    let (_, step) = run.resume(host, Event::Body(Some(b"abcd".to_vec())));
    assert_eq!(*log.borrow(), ["4bc", "3"]);
    assert_eq!(run.changed_body(), Some(b"new".to_vec()));
    let Step::Failed(why) = step else {
        panic!("{step:?}")
    };
    assert!(
        why.ends_with(":8: object used outside of proper scope"),
        "{why}"
    );
}

#[test]
fn chunks_and_trailers() {
    let (_, step, (run, host)) = begin(
        r"
        for chunk in handle:bodyChunks() do handle:logInfo(chunk:length()) end
        handle:logInfo(tostring(handle:trailers()))
    ",
    );
    assert_eq!(step, Step::Waits(Wait::Chunk));
    let log = Rc::clone(&host.log);
    let (host, step) = run.resume(host, Event::Chunk(Some(b"abcd".to_vec())));
    assert_eq!(step, Step::Waits(Wait::Chunk));
    run.end(true);
    let (_, step) = run.resume(host, Event::Chunk(None));
    assert_eq!(step, Step::Done);
    assert_eq!(log.borrow()[0], "4");
    assert!(log.borrow()[1].starts_with("userdata"), "{log:?}");
}

#[test]
fn calls() {
    let (_, step, (run, host)) = begin(
        r#"
        local headers, body = handle:httpCall("c", {[":method"] = "GET", [":path"] = "/", [":authority"] = "a", x = {"1", "2"}}, nil, 100)
        handle:logInfo(headers[":status"] .. body)
        handle:respond({[":status"] = "403", a = "b"}, "no")
    "#,
    );
    let Step::Waits(Wait::Call(call)) = step else {
        panic!("{step:?}")
    };
    assert_eq!((&*call.cluster, call.timeout_ms), ("c", 100));
    let log = Rc::clone(&host.log);
    let headers = vec![(b":status".to_vec(), b"200".to_vec())];
    let body = b"hi".to_vec();
    let (_, step) = run.resume(host, Event::Answer { headers, body });
    assert_eq!(*log.borrow(), ["200hi"]);
    let Step::Waits(Wait::Respond(respond)) = step else {
        panic!("{step:?}")
    };
    assert_eq!(respond.status, 403);
}

#[test]
fn metadata() {
    let (log, step) = run(r#"
        local dynamic = handle:streamInfo():dynamicMetadata()
        dynamic:set("f", "k", {a = 1.5, b = {1, "x", true}, c = {}})
    "#);
    assert_eq!(step, Step::Done);
    let value: Value = serde_json::from_str(log[0].strip_prefix("k=").unwrap()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"a": 1.5, "b": [1, "x", true], "c": {}})
    );
}
