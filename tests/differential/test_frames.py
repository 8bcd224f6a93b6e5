"""The suite's own HTTP/2: words as frames, and client and backend against each other without a proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator

import hpack
import pytest

from differential import frames
from differential.frames import Frame, Raw, Wait
from differential.h2backend import H2Backend
from differential.h2client import Conversation, converse


@pytest.fixture(scope="module")
def backend() -> Iterator[H2Backend]:
    backend = H2Backend("a")
    backend.start()
    try:
        yield backend
    finally:
        backend.stop()


def talk(backend: H2Backend, *entries: object, **options: object) -> Conversation:
    return converse(backend.port, frames.steps(list(entries)), **options)  # type: ignore[arg-type]


def test_a_line_is_a_whole_request() -> None:
    head, data, trailers = frames.steps(["POST /x; host: a; x-b: c; body=abc; trailer=x-t: v"])
    assert isinstance(head, Frame)
    assert head.fields == (
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/x"), (b"x-b", b"c"),
    )  # fmt: skip
    assert (head.stream, head.flags) == (1, frames.END_HEADERS)
    assert data == Frame(0, 0, 1, b"abc")
    assert isinstance(trailers, Frame)
    assert (trailers.flags, trailers.fields) == (frames.END_HEADERS | frames.END_STREAM, ((b"x-t", b"v"),))


def test_words_as_frames() -> None:
    found = frames.steps(
        ["SETTINGS ACK", {"SETTINGS": "ENABLE_PUSH=0, 0x9=1"}, {"DATA 3 END_STREAM PAD=2": "{a*3}\\x00"},
         {"RST_STREAM 3": "CANCEL"}, {"GOAWAY": "5 NO_ERROR"}, {"RAW": "hex:00ff"}, "WAIT 1 DATA=4", "WAIT END"]
    )  # fmt: skip
    assert found == (
        Frame(4, 1), Frame(4, 0, 0, b"\0\2\0\0\0\0\0\x09\0\0\0\1"), Frame(0, 9, 3, b"\2aaa\0\0\0"),
        Frame(3, 0, 3, b"\0\0\0\x08"), Frame(7, 0, 0, b"\0\0\0\5\0\0\0\0"), Raw(b"\0\xff"),
        Wait(1, "data", 4), Wait("end"),
    )  # fmt: skip


def test_a_broken_head_goes_out_as_it_is() -> None:
    (frame,) = frames.steps([{"HEADERS 1 OPEN": ":path: /; X-Up: v; :late: x"}])
    assert isinstance(frame, Frame)
    assert frame.flags == 0
    block = hpack.Encoder().encode(list(frame.fields or ()))
    assert hpack.Decoder().decode(block, raw=True) == [(b":path", b"/"), (b"X-Up", b"v"), (b":late", b"x")]


def test_an_echo_with_trailers_both_ways(backend: H2Backend) -> None:
    seen = talk(backend, "POST /x; x-do: trailers; body=abc; trailer=x-t: v")
    message = seen.streams[1]
    echo = json.loads(message.body)
    assert (message.status, message.ended, seen.end) == (200, True, "open")
    assert message.trailers == [("x-trailer", "yes"), ("x-trailer", "twice")]
    assert (echo["trailers"], echo["body"][0]) == ([["x-t", "v"]], 3)


def test_a_large_answer_through_a_small_window(backend: H2Backend) -> None:
    seen = talk(backend, "GET /; x-do: len=500000", settings={"INITIAL_WINDOW_SIZE": 1000})
    assert len(seen.streams[1].body) == 500_000


def test_ends_before_their_time(backend: H2Backend) -> None:
    assert talk(backend, "GET /; x-do: reset=CANCEL").streams[1].reset == "CANCEL"
    cut = talk(backend, "GET /; x-do: cut=INTERNAL_ERROR,len=10").streams[1]
    assert (cut.body, cut.reset, cut.ended) == (b"xxxxx", "INTERNAL_ERROR", False)
    assert talk(backend, "GET /; x-do: goaway").goaway == [(1, "NO_ERROR")]
    assert talk(backend, "GET /; x-do: fin").end == "eof"
    assert talk(backend, "GET /; x-do: bad=no-status").streams[1].status == 0


def test_the_fate_of_a_stream(backend: H2Backend) -> None:
    seen = talk(
        backend, {"HEADERS 1 END_STREAM": "GET /; x-do: delay=5; x-key: k"}, "WAIT PING", {"RST_STREAM 1": "CANCEL"},
        "GET /; x-do: fate; x-key: k", "WAIT 3", leave=True,
    )  # fmt: skip
    assert json.loads(seen.streams[3].body)["fate"] == ["reset CANCEL"]
