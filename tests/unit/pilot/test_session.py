"""The order of things on a stream: make before break, nothing twice, nothing lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.pilot.serve.config import ProxyConfig
from tidegate.pilot.serve.debounce import Debounce
from tidegate.pilot.serve.session import Answer, Request, Response, Session
from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS
from tidegate.pilot.translate.proxy import read_node

NODE = read_node("sidecar~10.0.0.1~a.default~default.svc.cluster.local", "", {})
SHORT = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}


def config(version: str, clusters: str, listener: str = "l", route: str = "r", endpoints: str = "e") -> ProxyConfig:
    """Clusters are letters, each with endpoints of its own; one listener with one route."""
    return ProxyConfig(
        version,
        {
            CDS: {name: name.encode() for name in clusters.lower()} | {n.lower(): n.encode() for n in clusters},
            EDS: {name: f"{endpoints}{name}".encode() for name in clusters.lower()},
            LDS: {"listener": listener.encode()},
            RDS: {"route": route.encode()},
        },
        {name: name for name in clusters.lower()},
        {"listener": ("route",)},
    )


@dataclass
class Proxy:
    """What Envoy does: ACKs at once, asks for endpoints and routes as it learns of them."""

    session: Session = field(default_factory=lambda: Session(NODE))
    now: float = 0.0
    nonces: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def request(self, kind: str, *names: str, nonce: str | None = None, error: str | None = None) -> Answer | None:
        return self.session.receive(
            Request(kind, self.nonces.get(kind, "") if nonce is None else nonce, "", names, error), self.now
        )

    def responses(self) -> list[Response]:
        found = self.session.responses(self.now)
        for response in found:
            self.nonces[response.type_url] = response.nonce
            what = ",".join(value.decode() for value in response.resources)
            self.log.append(f"{SHORT[response.type_url]} {what}")
        return found

    def take_log(self) -> list[str]:
        log, self.log = self.log, []
        return log

    def settle(self) -> list[str]:
        """Converse until nothing more is said."""
        while found := self.responses():
            for response in found:
                if response.type_url == CDS:
                    self.request(CDS)
                    self.request(EDS, *(value.decode().lower() for value in response.resources))
                elif response.type_url == LDS:
                    self.request(LDS)
                    self.request(RDS, "route")
                else:
                    names = self.session.watches[response.type_url].names
                    self.request(response.type_url, *names)
        return self.take_log()

    def connect(self, first: ProxyConfig) -> list[str]:
        self.session.offer(first)
        self.request(CDS)
        log = self.settle()
        self.request(LDS)
        return log + self.settle()


def test_a_new_proxy_gets_everything_in_order() -> None:
    proxy = Proxy()
    assert proxy.connect(config("1", "ab")) == ["CDS a,b", "EDS ea,eb", "LDS l", "RDS r"]
    assert proxy.session.settled(0) == "1"


def test_the_same_content_is_not_sent_again() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    proxy.session.offer(config("2", "ab"))
    assert proxy.settle() == []
    assert proxy.session.settled(0) == "2"


def test_a_route_change_pushes_routes_only() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    proxy.session.offer(config("2", "ab", route="r2"))
    assert proxy.settle() == ["RDS r2"]


def test_only_changed_endpoints_are_sent() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    changed = config("2", "ab")
    proxy.session.offer(
        ProxyConfig("2", {**changed.resources, EDS: {"a": b"ea", "b": b"new"}}, changed.endpoints_of, changed.routes_of)
    )
    assert proxy.settle() == ["EDS new"]


def test_make_before_break() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    proxy.session.offer(config("2", "bc", listener="l2", route="r2"))
    log = proxy.settle()
    assert sorted(log[0].removeprefix("CDS ").split(",")) == ["a", "b", "c"]
    assert log[1:] == ["EDS ec", "LDS l2", "RDS r2", "CDS b,c"]


def test_nothing_follows_before_the_answer() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "a"))
    proxy.session.offer(config("2", "ab", route="r2"))
    proxy.responses()
    assert proxy.take_log() == ["CDS a,b"]
    assert proxy.responses() == []
    proxy.request(CDS)
    assert proxy.responses() == [], "the endpoints of b have not been asked for yet"
    proxy.request(EDS, "a", "b")
    proxy.responses()
    assert proxy.take_log() == ["EDS eb"]
    assert proxy.responses() == []
    proxy.request(EDS, "a", "b")
    proxy.responses()
    assert proxy.take_log() == ["RDS r2"]


def test_patience_ends() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "a"))
    proxy.session.offer(config("2", "ab", route="r2"))
    proxy.responses()
    deadline = proxy.session.deadline(proxy.now)
    assert deadline == 5.0
    proxy.take_log()
    proxy.now = deadline
    proxy.responses()
    assert "RDS r2" in proxy.take_log()


def test_a_changed_cluster_gets_its_unchanged_endpoints_again() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    proxy.session.offer(config("2", "Ab"))
    log = proxy.settle()
    assert log[0] in ("CDS A,b", "CDS b,A")
    assert log[1:] == ["EDS ea"]


def test_a_changed_listener_gets_its_unchanged_routes_again() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "a"))
    proxy.session.offer(config("2", "a", listener="l2"))
    assert proxy.settle() == ["LDS l2", "RDS r"]


def test_a_rejection_is_kept_and_not_repeated_until_something_changes() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "a"))
    proxy.session.offer(config("2", "a", route="bad"))
    proxy.responses()
    answer = proxy.request(RDS, "route", error="virtual_hosts[0]: no")
    assert answer == Answer(RDS, "virtual_hosts[0]: no", 0.0)
    watch = proxy.session.watches[RDS]
    assert (watch.rejected, watch.version_sent, watch.version_acked) == ({"route": "virtual_hosts[0]: no"}, "2", "1")
    assert proxy.session.settled(0) == ""
    proxy.take_log()
    assert proxy.settle() == []
    proxy.session.offer(config("3", "a", route="good"))
    assert proxy.settle() == ["RDS good"]
    assert watch.rejected == {}
    assert proxy.session.settled(0) == "3"


def test_stale_requests_change_nothing() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "ab"))
    assert proxy.request(EDS, nonce="long ago") is None
    assert proxy.session.watches[EDS].names == {"a", "b"}


def test_names_added_are_answered_alone_and_names_dropped_not_at_all() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "abc"))
    proxy.request(EDS, "a")
    assert proxy.responses() == []
    proxy.request(EDS, "a", "c")
    proxy.responses()
    assert proxy.take_log() == ["EDS ec"]


def test_a_proxy_that_comes_back_waits_for_its_clusters_before_routes() -> None:
    proxy = Proxy()
    proxy.session.offer(config("1", "a"))
    for kind, names in ((CDS, ()), (EDS, ("old",)), (LDS, ()), (RDS, ("route",))):
        proxy.request(kind, *names)
    proxy.responses()
    assert proxy.take_log() == ["CDS a", "EDS "]
    proxy.request(CDS)
    proxy.request(EDS, "old", "a")
    proxy.responses()
    assert proxy.take_log() == ["EDS ea"]
    proxy.request(EDS, "old", "a")
    proxy.responses()
    assert proxy.take_log() == ["LDS l", "RDS r"]


def test_everything_can_be_sent_again() -> None:
    proxy = Proxy()
    proxy.connect(config("1", "a"))
    proxy.session.resend_all()
    log = proxy.settle()
    assert {line.split()[0] for line in log} == {"CDS", "EDS", "LDS", "RDS"}
    assert proxy.settle() == []


def test_debounce_waits_for_quiet_but_not_for_ever() -> None:
    debounce = Debounce(after=1.0, at_most=3.0)
    assert debounce.due() is None
    for now in (0.0, 0.9, 1.8, 2.7):
        debounce.changed(now)
        assert not debounce.take(now)
    assert debounce.due() == 3.0
    assert debounce.take(3.0)
    assert debounce.due() is None
