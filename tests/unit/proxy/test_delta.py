"""The incremental conversation as transcripts; `tests/integration/test_conversation.py` has them with real Envoy."""

from __future__ import annotations

from tidegate.proxy.ads.delta import DeltaProtocol, DeltaRequest, DeltaResponse
from tidegate.proxy.ads.patience import Overdue
from tidegate.proxy.ads.protocol import Outcome, Update, Wanted

CDS, EDS, LDS, RDS = "type/Cluster", "type/ClusterLoadAssignment", "type/Listener", "type/RouteConfiguration"


def everything(type_url: str, timeout: float = 0.0) -> Wanted:
    return Wanted(type_url, (), timeout)


def response(type_url: str, nonce: str, *names: str, removed: tuple[str, ...] = (), version: str = "") -> DeltaResponse:
    return DeltaResponse(
        type_url, "v", nonce, [(name, b"") for name in names], [(name, version) for name in names], list(removed)
    )


def accept(ads: DeltaProtocol, answer: DeltaResponse) -> list[DeltaRequest]:
    assert isinstance(ads.received(answer), Update)
    return ads.applied(Outcome([name for name, _ in answer.resources], ()))


def test_the_wildcard_asks_for_nothing_by_name_and_an_answer_is_a_nonce() -> None:
    ads = DeltaProtocol()
    assert ads.subscribe([everything(CDS)], 0) == []
    assert ads.connected() == [DeltaRequest(CDS)]
    update = ads.received(response(CDS, "n1", "b", "a", removed=("c",)))
    assert update == Update(CDS, "v", [("b", b""), ("a", b"")], ["c"], [("b", ""), ("a", "")])
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("b", "a"), 0)], 1) == [DeltaRequest(EDS, subscribe=("a", "b"))]
    assert ads.applied(Outcome(("a", "b"), ())) == [DeltaRequest(CDS, "n1")]
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("b", "a"), 0)], 2) == []


def test_only_changes_of_names_are_said() -> None:
    ads = DeltaProtocol()
    ads.subscribe([Wanted(EDS, ("a", "b"), 0)], 0)
    assert ads.connected() == [DeltaRequest(EDS, subscribe=("a", "b"))]
    assert ads.subscribe([Wanted(EDS, ("b", "c"), 0)], 1) == [DeltaRequest(EDS, subscribe=("c",), unsubscribe=("a",))]
    assert ads.subscribe([], 2) == [DeltaRequest(EDS, unsubscribe=("b", "c"))]
    assert ads.received(response(EDS, "n1", "b")) == DeltaRequest(EDS, "n1")
    assert ads.subscribe([Wanted(EDS, ("a",), 0)], 3) == [DeltaRequest(EDS, subscribe=("a",))]


def test_nobody_watches_any_more_and_a_new_stream_does_not_ask() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(CDS), Wanted(RDS, ("r",), 0)], 0)
    ads.connected()
    ads.subscribe([everything(CDS)], 1)
    ads.disconnected()
    assert ads.connected() == [DeltaRequest(CDS)]


def test_a_new_stream_starts_with_the_versions_of_what_is_there() -> None:
    ads = DeltaProtocol()
    wanted = [everything(CDS), Wanted(EDS, ("a", "b"), 0)]
    ads.subscribe(wanted, 0)
    ads.connected()
    accept(ads, response(CDS, "n1", "a", "b", "c"))
    accept(ads, response(EDS, "n2", "a", "b", "stray", version="7"))
    accept(ads, response(CDS, "n3", removed=("c",)))
    accept(ads, response(EDS, "n4", removed=("b",)))
    ads.disconnected()
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("a", "b", "d"), 0)], 1) == []
    assert ads.connected() == [
        DeltaRequest(CDS, initial_versions=(("a", ""), ("b", ""))),
        DeltaRequest(EDS, subscribe=("a", "b", "d"), initial_versions=(("a", "7"),)),
    ]


def test_a_refused_response_is_answered_with_the_reason_and_its_versions_do_not_count() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(LDS)], 0)
    ads.connected()
    ads.received(response(LDS, "n1", "x", "y"))
    assert ads.applied(Outcome(("x",), ("y",), "y: address: required")) == [
        DeltaRequest(LDS, "n1", error_message="y: address: required")
    ]
    ads.disconnected()
    assert ads.connected() == [DeltaRequest(LDS)]


def test_answers_of_a_paused_type_wait_and_the_others_do_not() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(CDS), Wanted(EDS, ("a",), 0)], 0)
    ads.connected()
    ads.received(response(CDS, "n1", "a", "b"))
    ads.pause([CDS])
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("a", "b"), 0)], 1) == [DeltaRequest(EDS, subscribe=("b",))]
    assert ads.applied(Outcome(("a", "b"), ())) == []
    assert isinstance(ads.received(response(EDS, "n2", "b")), Update)
    assert ads.pause([]) == [DeltaRequest(CDS, "n1")]
    assert ads.applied(Outcome(("b",), ())) == [DeltaRequest(EDS, "n2")]


def test_a_stream_that_ends_takes_its_answers_along() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(CDS)], 0)
    ads.connected()
    ads.received(response(CDS, "n1", "a"))
    ads.pause([CDS])
    ads.applied(Outcome(("a",), ()))
    ads.disconnected()
    assert ads.connected() == []
    assert ads.pause([]) == [DeltaRequest(CDS, initial_versions=(("a", ""),))]


def test_a_type_that_was_never_asked_for_is_ignored() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(CDS)], 0)
    ads.connected()
    assert ads.received(response("type/Secret", "n1", "s")) is None


def test_a_removal_is_an_answer_too() -> None:
    ads = DeltaProtocol()
    ads.subscribe([everything(CDS, 15), Wanted(EDS, ("a", "b"), 5)], 100)
    ads.connected()
    accept(ads, response(EDS, "n1", removed=("a",)))
    assert ads.patience.overdue(105) == [Overdue(EDS, ("b",))]
    assert ads.patience.next() == 115
