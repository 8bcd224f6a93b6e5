"""`StringMatch`: exactly one of exact, prefix and regex."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.pilot.crd.reader import Value


@dataclass(frozen=True)
class StringMatch:
    """`kind` is `exact`, `prefix` or `regex`."""

    kind: str
    value: str


def read_string_match(value: Value) -> StringMatch:
    match = value.mapping()
    kind = match.exactly_one(("exact", "prefix", "regex"))
    field = match.need(kind)
    if kind == "regex":
        text = field.regex()
    elif kind == "prefix":
        text = field.non_empty()
    else:
        text = field.string()
    match.finish()
    return StringMatch(kind, text)


def read_presence_or_match(value: Value) -> StringMatch | None:
    """As `read_string_match`; an empty object only asks for presence."""
    return read_string_match(value) if value.mapping().names() else None
