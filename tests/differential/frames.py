"""HTTP/2 frames as words: what a case writes, as the steps a client takes. Broken ones can be written like any other.

A step is a line, or a mapping of one line to its text:

    GET /x; host: a; x-b: c; body=TEXT; trailer=x-t: v     a whole request on the next stream
    {HEADERS 1 [END_STREAM] [OPEN] [PAD=n] [WEIGHT=dep:weight]: FIELDS}   OPEN leaves END_HEADERS out
    {CONTINUATION 1 [OPEN]: FIELDS}
    {DATA 1 [END_STREAM] [PAD=n]: TEXT}
    {RST_STREAM 1: CODE}  {SETTINGS: NAME=n, …}  SETTINGS ACK  {PING: 8 bytes}  {GOAWAY: LAST CODE}
    {WINDOW_UPDATE 0: n}  {PRIORITY 1: dep:weight}  {FRAME type flags stream: HEX}  {RAW: TEXT}
    WAIT 1 | WAIT 1 HEADERS | WAIT 1 DATA=n | WAIT PING | WAIT GOAWAY | WAIT END
    PAUSE 0.1 | SHUT

FIELDS are `METHOD PATH; name: value; …` (the pseudo headers are added, `host` is the authority, `scheme=` the scheme)
or, beginning with a colon or `+`, exactly the fields that stand there. `{x*100}` is a hundred x; an item `100 x-#: v`
is a hundred fields x-0 to x-99; backslash escapes are Python's (`\\x3b` for a semicolon); a text that begins with
`hex:` is bytes as they are.

Must not know sockets, nor the proxies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TYPES = {
    name: number
    for number, name in enumerate(
        ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
         "CONTINUATION"]
    )
}  # fmt: skip
CODES = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]  # fmt: skip
SETTINGS = {
    "HEADER_TABLE_SIZE": 1, "ENABLE_PUSH": 2, "MAX_CONCURRENT_STREAMS": 3, "INITIAL_WINDOW_SIZE": 4,
    "MAX_FRAME_SIZE": 5, "MAX_HEADER_LIST_SIZE": 6, "ENABLE_CONNECT_PROTOCOL": 8,
}  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32

Field = tuple[bytes, bytes]


@dataclass(frozen=True)
class Frame:
    """Bytes to be, but for the header block, which depends on what the connection's encoder knows already."""

    kind: int
    flags: int = 0
    stream: int = 0
    payload: bytes = b""
    fields: tuple[Field, ...] | None = None
    #: around the block: what goes before and behind it
    before: bytes = b""
    behind: bytes = b""


@dataclass(frozen=True)
class Raw:
    data: bytes


@dataclass(frozen=True)
class Wait:
    """`what`: a stream's number (`part`: end, headers or data), ping, goaway or end."""

    what: int | str
    part: str = "end"
    count: int = 0


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Shut:
    """Half-closes the connection."""


Step = Frame | Raw | Wait | Pause | Shut


def encode(frame: Frame, block: bytes | None = None) -> bytes:
    """The frame's bytes; `block` is its encoded header block."""
    payload = frame.payload if block is None else frame.before + block + frame.behind
    return (
        len(payload).to_bytes(3, "big") + bytes([frame.kind, frame.flags]) + frame.stream.to_bytes(4, "big") + payload
    )


def code(name: str) -> int:
    return CODES.index(name) if name in CODES else int(name, 0)


def code_name(number: int) -> str:
    return CODES[number] if number < len(CODES) else hex(number)


def text(value: object) -> bytes:
    """A text of a case as bytes."""
    found = str(value)
    if found.startswith("hex:"):
        return bytes.fromhex(found[4:])
    found = re.sub(r"\{(.)\*(\d+)\}", lambda m: m[1] * int(m[2]), found)
    return found.encode("latin-1").decode("unicode_escape").encode("latin-1")


def steps(entries: list[Any]) -> tuple[Step, ...]:
    """The steps that lines and mappings stand for."""
    found: list[Step] = []
    next_stream = 1
    for entry in entries:
        line, value = next(iter(entry.items())) if isinstance(entry, dict) else (str(entry), None)
        words = line.split(" ")
        if words[0] in TYPES or words[0] in ("FRAME", "RAW", "WAIT", "PAUSE", "SHUT"):
            step = _step(words[0], words[1:], value)
            if isinstance(step, Frame) and step.kind == TYPES["HEADERS"]:
                next_stream = max(next_stream, step.stream + 2)
            found.append(step)
        else:
            found += request(line, next_stream)
            next_stream += 2
    return tuple(found)


def request(line: str, stream: int) -> list[Step]:
    """`POST /x; host: a; body=TEXT; trailer=x: y` on a stream."""
    first, *items = line.split("; ")
    body = [i[5:] for i in items if i.startswith("body=")]
    trailers = [i[8:] for i in items if i.startswith("trailer=")]
    heads = [i for i in items if not i.startswith(("body=", "trailer="))]
    flags = END_HEADERS | (0 if body or trailers else END_STREAM)
    found: list[Step] = [Frame(TYPES["HEADERS"], flags, stream, fields=fields("; ".join([first, *heads])))]
    for index, part in enumerate(body):
        last = index == len(body) - 1 and not trailers
        found.append(Frame(TYPES["DATA"], END_STREAM if last else 0, stream, text(part)))
    if trailers:
        flags = END_HEADERS | END_STREAM
        found.append(Frame(TYPES["HEADERS"], flags, stream, fields=fields("+" + "; ".join(trailers))))
    return found


def fields(value: str) -> tuple[Field, ...]:
    """The header fields that a text stands for."""
    if value.startswith("hex:"):
        raise ValueError("a block of bytes is no list of fields")
    literal = value.startswith((":", "+"))
    items = [i for i in value.removeprefix("+").split("; ") if i]
    found: list[Field] = []
    if not literal:
        method, _, path = items[0].partition(" ")
        pairs = [p for i in items[1:] for p in _field(i)]
        authority = next((v for n, v in pairs if n == b"host"), b"test.example")
        scheme = next((i[7:] for i in items[1:] if i.startswith("scheme=")), "http")
        found = [(b":method", text(method)), (b":scheme", text(scheme)), (b":authority", authority)]
        found += [(b":path", text(path))] if path else []
        return (*found, *(p for p in pairs if p[0] not in (b"host", b"scheme=" + text(scheme))))
    return tuple(p for i in items for p in _field(i))


def _field(item: str) -> Iterator[Field]:
    count, template = 1, item
    if many := re.match(r"(\d+) (?=.*#)", item):
        count, template = int(many[1]), item[many.end() :]
    for number in range(count):
        name, _, value = template.replace("#", str(number)).partition(":") if many else template.partition(":")
        if not name:  # a pseudo header: the colon is its first character
            name, _, value = value.partition(":")
            name = ":" + name
        yield text(name), text(value.removeprefix(" "))


def _step(verb: str, words: list[str], value: Any) -> Step:
    match verb:
        case "WAIT":
            return _wait(words)
        case "PAUSE":
            return Pause(float(words[0]))
        case "SHUT":
            return Shut()
        case "RAW":
            return Raw(text(value))
        case "FRAME":
            kind, flags, stream = (int(w, 0) for w in words)
            return Frame(kind, flags, stream, bytes.fromhex(str(value or "").removeprefix("hex:")))
    flags = 0
    options = dict(w.partition("=")[::2] for w in words)
    stream = next((int(w) for w in words if w.isdigit()), 0)
    if verb in ("HEADERS", "CONTINUATION", "PUSH_PROMISE"):
        return _headers(verb, stream, options, str(value if value is not None else "+"))
    if "END_STREAM" in options or "ACK" in options:
        flags |= END_STREAM
    payload = b""
    match verb:
        case "DATA":
            payload = text(value if value is not None else "")
            if "PAD" in options:
                pad = int(options["PAD"])
                flags, payload = flags | PADDED, bytes([pad]) + payload + bytes(pad)
        case "RST_STREAM":
            payload = code(str(value)).to_bytes(4, "big")
        case "WINDOW_UPDATE":
            payload = int(value).to_bytes(4, "big")
        case "PING":
            payload = text(value if value is not None else "12345678")
        case "PRIORITY":
            payload = _weight(str(value))
        case "GOAWAY":
            last, name = str(value).split(" ")
            payload = int(last).to_bytes(4, "big") + code(name).to_bytes(4, "big")
        case "SETTINGS":
            for item in str(value).split(", ") if value else []:
                name, _, number = item.partition("=")
                key = SETTINGS[name] if name in SETTINGS else int(name, 0)
                payload += key.to_bytes(2, "big") + int(number, 0).to_bytes(4, "big")
    return Frame(TYPES[verb], flags, stream, payload)


def _headers(verb: str, stream: int, options: dict[str, str], value: str) -> Frame:
    flags = 0 if "OPEN" in options else END_HEADERS
    if "END_STREAM" in options:
        flags |= END_STREAM
    before, behind = b"", b""
    if "PAD" in options:
        pad = int(options["PAD"])
        flags, before, behind = flags | PADDED, bytes([pad]), bytes(pad)
    if "WEIGHT" in options:
        flags, before = flags | PRIORITY, before + _weight(options["WEIGHT"])
    if value.startswith("hex:"):
        return Frame(TYPES[verb], flags, stream, before + text(value) + behind)
    return Frame(TYPES[verb], flags, stream, fields=fields(value), before=before, behind=behind)


def _weight(value: str) -> bytes:
    dependency, _, weight = value.partition(":")
    return int(dependency).to_bytes(4, "big") + bytes([int(weight or "16") - 1])


def _wait(words: list[str]) -> Wait:
    if not words[0].isdigit():
        return Wait(words[0].lower())
    part, _, count = (words[1] if len(words) > 1 else "END").partition("=")
    return Wait(int(words[0]), part.lower(), int(count or 0))
