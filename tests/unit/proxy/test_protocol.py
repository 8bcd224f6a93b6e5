"""The ADS conversation as transcripts: what the engine wants and what the server says in, requests out."""

from __future__ import annotations

from tidegate.proxy.ads.patience import Overdue
from tidegate.proxy.ads.protocol import AdsProtocol, Outcome, Request, Response, Update, Wanted

CDS, EDS, LDS, RDS = "type/Cluster", "type/ClusterLoadAssignment", "type/Listener", "type/RouteConfiguration"
ALL_GOOD = Outcome((), ())


def everything(type_url: str, timeout: float = 0.0) -> Wanted:
    return Wanted(type_url, (), timeout)


def response(type_url: str, version: str, nonce: str, *names: str) -> Response:
    return Response(type_url, version, nonce, [(name, b"") for name in names])


def test_clusters_then_endpoints_then_listeners_then_routes() -> None:
    ads = AdsProtocol()
    assert ads.subscribe([everything(CDS)], 0) == []
    assert ads.connected() == [Request(CDS, "", "", ())]

    assert ads.received(response(CDS, "v1", "n1", "b", "a")) == Update(CDS, "v1", [("b", b""), ("a", b"")])
    assert ads.applied(Outcome(("a", "b"), ())) == [Request(CDS, "v1", "n1", ())]
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("b", "a", "a"), 0)], 1) == [Request(EDS, "", "", ("a", "b"))]

    assert isinstance(ads.received(response(EDS, "e1", "n2", "a", "b")), Update)
    assert ads.applied(Outcome(("a", "b"), ())) == [Request(EDS, "e1", "n2", ("a", "b"))]
    warm = [everything(CDS), Wanted(EDS, ("a", "b"), 0), everything(LDS)]
    assert ads.subscribe(warm, 2) == [Request(LDS, "", "", ())]

    assert isinstance(ads.received(response(LDS, "l1", "n3", "0.0.0.0_9080")), Update)
    assert ads.applied(Outcome(("0.0.0.0_9080",), ())) == [Request(LDS, "l1", "n3", ())]
    assert ads.subscribe([*warm, Wanted(RDS, ("9080",), 0)], 3) == [Request(RDS, "", "", ("9080",))]


def test_a_changed_list_of_names_goes_out_with_the_last_version_and_nonce() -> None:
    ads = AdsProtocol()
    ads.subscribe([Wanted(EDS, ("a",), 0)], 0)
    ads.connected()
    ads.received(response(EDS, "1", "n1", "a"))
    ads.applied(Outcome(("a",), ()))
    assert ads.subscribe([Wanted(EDS, ("a", "b"), 0)], 1) == [Request(EDS, "1", "n1", ("a", "b"))]
    assert ads.subscribe([Wanted(EDS, ("b", "a"), 0)], 2) == []


def test_a_rejected_update_is_answered_with_the_last_good_version_and_the_reason() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(LDS)], 0)
    ads.connected()
    ads.received(response(LDS, "1", "n1", "x"))
    ads.applied(Outcome(("x",), ()))
    ads.received(response(LDS, "2", "n2", "x", "y"))
    assert ads.applied(Outcome(("x",), ("y",), "y: address: required")) == [
        Request(LDS, "1", "n2", (), "y: address: required")
    ]
    ads.received(response(LDS, "3", "n3", "x"))
    assert ads.applied(Outcome(("x",), ())) == [Request(LDS, "3", "n3", ())]


def test_a_new_stream_starts_with_the_versions_in_force_and_no_nonce() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS), Wanted(EDS, ("a",), 0)], 0)
    ads.connected()
    ads.received(response(CDS, "7", "n1", "a"))
    ads.applied(Outcome(("a",), ()))
    ads.disconnected()
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("a", "b"), 0)], 1) == []
    assert ads.connected() == [Request(CDS, "7", "", ()), Request(EDS, "", "", ("a", "b"))]


def test_a_stream_that_ends_while_the_engine_applies_gets_no_answer() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS)], 0)
    ads.connected()
    ads.received(response(CDS, "1", "n1"))
    ads.disconnected()
    assert ads.applied(ALL_GOOD) == []


def test_nobody_watches_any_more() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS), Wanted(RDS, ("r",), 0)], 0)
    ads.connected()
    ads.received(response(RDS, "1", "n1", "r"))
    ads.applied(Outcome(("r",), ()))
    assert ads.subscribe([everything(CDS)], 1) == [Request(RDS, "1", "n1", ())]
    # What crossed our message on the wire: resources are not taken, emptiness is.
    assert ads.received(response(RDS, "2", "n2", "r")) == Request(RDS, "1", "n2", ())
    assert ads.received(response(RDS, "3", "n3")) == Request(RDS, "3", "n3", ())
    assert ads.subscribe([everything(CDS), Wanted(RDS, ("r",), 0)], 2) == [Request(RDS, "3", "n3", ("r",))]
    # A new stream does not ask for what is not wanted.
    ads.subscribe([everything(CDS)], 3)
    ads.disconnected()
    assert ads.connected() == [Request(CDS, "", "", ())]


def test_a_type_that_was_never_asked_for_is_ignored() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS)], 0)
    ads.connected()
    assert ads.received(response("type/Secret", "1", "n1", "s")) is None


def test_patience_ends_per_name_and_once() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS, 15), Wanted(EDS, ("a", "b"), 5)], 100)
    assert ads.patience.next() == 105
    ads.connected()
    ads.received(response(EDS, "1", "n1", "a"))
    ads.applied(Outcome(("a",), ()))
    assert ads.patience.overdue(104.9) == []
    assert ads.patience.overdue(105) == [Overdue(EDS, ("b",))]
    assert ads.patience.overdue(105) == []
    assert ads.patience.next() == 115
    assert ads.patience.overdue(115) == [Overdue(CDS, ())]
    assert ads.patience.next() is None


def test_an_answer_ends_the_wait_even_when_it_was_rejected() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(LDS, 15), Wanted(EDS, ("a",), 15)], 0)
    ads.connected()
    ads.received(response(LDS, "1", "n1", "x"))
    ads.applied(Outcome((), ("x",), "no"))
    ads.received(response(EDS, "1", "n2", "a"))
    ads.applied(Outcome((), ("a",), "no"))
    assert ads.patience.next() is None


def test_zero_waits_for_ever_and_a_name_that_goes_is_waited_for_no_more() -> None:
    ads = AdsProtocol()
    ads.subscribe([Wanted(EDS, ("a",), 0)], 0)
    assert ads.patience.next() is None
    ads.subscribe([Wanted(EDS, ("a", "b"), 9)], 1)
    assert ads.patience.next() == 10
    ads.subscribe([Wanted(EDS, ("a",), 9)], 2)
    assert ads.patience.next() is None
    ads.subscribe([Wanted(EDS, ("a", "b"), 9)], 3)
    ads.subscribe([], 4)
    assert ads.patience.next() is None


def test_a_paused_type_says_all_that_it_had_to_say_in_one_request() -> None:
    ads = AdsProtocol()
    ads.subscribe([everything(CDS), Wanted(EDS, ("a",), 0)], 0)
    ads.connected()
    ads.received(response(CDS, "1", "n1", "a", "b"))
    assert ads.pause([CDS]) == []
    assert ads.applied(Outcome(("a", "b"), ())) == []
    assert ads.subscribe([everything(CDS), Wanted(EDS, ("a", "b"), 0)], 1) == [Request(EDS, "", "", ("a", "b"))]
    assert ads.pause([]) == [Request(CDS, "1", "n1", ())]
    assert ads.pause([]) == []


def test_names_of_one_type_are_waited_for_differently() -> None:
    ads = AdsProtocol()
    ads.subscribe([Wanted("type/Secret", ("patient",), 0), Wanted("type/Secret", ("hasty",), 2)], 100)
    assert ads.connected() == [Request("type/Secret", "", "", ("hasty", "patient"))]
    assert ads.patience.overdue(102) == [Overdue("type/Secret", ("hasty",))]
    assert ads.patience.next() is None
