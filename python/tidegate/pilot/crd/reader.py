"""Typed reading of YAML nodes that remembers where every value stood.

A `Mapping` hands out its fields once each; `finish()` refuses whatever nobody asked for, so that a field which is not
translated can never be ignored by accident. Knows YAML nodes; must not know any kind of resource.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import NoReturn, TypeVar

import yaml

from tidegate.pilot.crd.rejection import Rejection, ResourceRejectedError

T = TypeVar("T")

_STR = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_DURATION_UNITS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.IGNORECASE)


def _kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "an object"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    names = {_STR: "a string", _INT: "an integer", _FLOAT: "a number", _BOOL: "a boolean", _NULL: "null"}
    return names.get(node.tag, f"a value of type {node.tag}")


class Value:
    """One YAML value with its path and position."""

    def __init__(self, node: yaml.Node, file: str, path: str) -> None:
        self.node = node
        self.file = file
        self.path = path

    @property
    def line(self) -> int:
        """The line in the file, counted from one."""
        return int(self.node.start_mark.line) + 1

    def refuse(self, reason: str) -> NoReturn:
        """Refuse the document because of this value."""
        raise ResourceRejectedError(Rejection(self.file, self.line, self.path, reason))

    def is_null(self) -> bool:
        return self.node.tag == _NULL

    def mapping(self) -> Mapping:
        if not isinstance(self.node, yaml.MappingNode):
            self.refuse(f"must be an object, is {_kind_of(self.node)}")
        return Mapping(self.node, self.file, self.path)

    def items(self) -> list[Value]:
        """The elements of a list, each with its index in the path."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.refuse(f"must be a list, is {_kind_of(self.node)}")
        return [Value(child, self.file, f"{self.path}[{index}]") for index, child in enumerate(self.node.value)]

    def _scalar(self, wanted: str, tags: Collection[str]) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag not in tags:
            hint = ""
            if isinstance(self.node, yaml.ScalarNode) and wanted == "a string" and self.node.tag != _NULL:
                hint = f"; quote it: {self.node.value!r}"
            self.refuse(f"must be {wanted}, is {_kind_of(self.node)}{hint}")
        return str(self.node.value)

    def string(self) -> str:
        return self._scalar("a string", (_STR,))

    def non_empty(self) -> str:
        text = self.string()
        if not text:
            self.refuse("must not be empty")
        return text

    def one_of(self, allowed: Collection[str], *, unsupported: Collection[str] = ()) -> str:
        """One of the words `allowed`; a word in `unsupported` is real but not translated, and is refused as such."""
        text = self.string()
        if text in unsupported:
            self.refuse(f"{text} is not supported")
        if text not in allowed:
            self.refuse(f"{text!r} is not one of {', '.join(sorted(allowed))}")
        return text

    def integer(self, low: int = 0, high: int = 2**32 - 1) -> int:
        text = self._scalar("an integer", (_INT,))
        try:
            number = int(text.replace("_", ""), 0)
        except ValueError:
            self.refuse(f"must be a decimal integer, is {text!r}")
        if not low <= number <= high:
            self.refuse(f"must be between {low} and {high}, is {number}")
        return number

    def port(self) -> int:
        return self.integer(1, 65535)

    def number(self, low: float, high: float) -> float:
        text = self._scalar("a number", (_INT, _FLOAT))
        try:
            number = float(text.replace("_", ""))
        except ValueError:
            self.refuse(f"must be a number, is {text!r}")
        if not low <= number <= high:
            self.refuse(f"must be between {low:g} and {high:g}, is {text}")
        return number

    def boolean(self) -> bool:
        text = self._scalar("true or false", (_BOOL,))
        if text.lower() not in ("true", "false"):
            # YAML 1.1 reads yes, no, on and off as booleans; a rule that depends on that is a rule misread.
            self.refuse(f"write true or false instead of {text}")
        return text.lower() == "true"

    def duration(self, minimum: timedelta = timedelta(milliseconds=1), *, zero: bool = False) -> timedelta:
        """A Go duration such as `1h30m`, `10s` or `250ms`. Zero is allowed on request: it switches something off."""
        text = self.string()
        seconds, end = 0.0, 0
        for part in _DURATION_PART.finditer(text):
            if part.start() != end:
                break
            seconds, end = seconds + float(part[1]) * _DURATION_UNITS[part[2]], part.end()
        if not text or end != len(text):
            self.refuse(f"must be a duration such as 10s, 250ms or 1h30m, is {text!r}")
        duration = timedelta(seconds=seconds)
        if not duration and zero:
            return duration
        if duration < minimum:
            self.refuse(f"must be at least {minimum.total_seconds() * 1000:g}ms, is {text}")
        return duration

    def address(self) -> str:
        """An IPv4 or IPv6 address in its usual spelling."""
        text = self.string()
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            self.refuse(f"must be an IP address, is {text!r}")

    def host(self, *, wildcard: bool = True) -> str:
        """A DNS name, `*.suffix` or `*` where `wildcard`, or an IP address; lower case."""
        text = self.non_empty()
        name = text.lower().rstrip(".")
        rest = name
        if name.startswith("*"):
            if not wildcard:
                self.refuse(f"must not be a wildcard, is {text!r}")
            if name == "*":
                return name
            if not name.startswith("*."):
                self.refuse(f"a wildcard is the whole first label, as in *.example.com; is {text!r}")
            rest = name[2:]
        try:
            return str(ipaddress.ip_address(rest))
        except ValueError:
            pass
        if len(rest) > 253 or not all(len(x) <= 63 and _DNS_LABEL.fullmatch(x) for x in rest.split(".")):
            self.refuse(f"must be a DNS name, is {text!r}")
        return name

    def regex(self) -> str:
        """A regular expression, in the common subset of RE2 and Python's syntax."""
        text = self.non_empty()
        try:
            re.compile(text)
        except re.error as error:
            self.refuse(f"is not a regular expression: {error}")
        for construct, name in (
            ("(?=", "look-ahead"),
            ("(?!", "look-ahead"),
            ("(?<=", "look-behind"),
            ("(?<!", "look-behind"),
        ):
            if construct in text:
                self.refuse(f"{name} is not part of RE2 syntax")
        return text


class Mapping(Value):
    """An object whose fields are taken one by one; see `finish`."""

    def __init__(self, node: yaml.MappingNode, file: str, path: str) -> None:
        super().__init__(node, file, path)
        self._fields: dict[str, Value] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                Value(key, file, path).refuse("a key must be a string")
            name = str(key.value)
            value = Value(child, file, self._path_of(name))
            if name in self._fields:
                Value(key, file, value.path).refuse("is given twice")
            self._fields[name] = value

    def _path_of(self, name: str) -> str:
        if not self.path:
            return name
        return f"{self.path}.{name}" if re.fullmatch(r"[\w-]+", name) else f"{self.path}[{name!r}]"

    def __contains__(self, name: str) -> bool:
        return name in self._fields and not self._fields[name].is_null()

    def names(self) -> list[str]:
        return [name for name, value in self._fields.items() if not value.is_null()]

    def take(self, name: str) -> Value | None:
        """The field, which then counts as read; `None` where it is absent or null."""
        value = self._fields.pop(name, None)
        return None if value is None or value.is_null() else value

    def need(self, name: str) -> Value:
        """The field, or a rejection saying that it is missing."""
        value = self.take(name)
        if value is None:
            raise ResourceRejectedError(Rejection(self.file, self.line, self._path_of(name), "is required"))
        return value

    def read(self, name: str, convert: Callable[[Value], T], default: T) -> T:
        """The field converted, or `default` where it is absent."""
        value = self.take(name)
        return default if value is None else convert(value)

    def optional(self, name: str, convert: Callable[[Value], T]) -> T | None:
        """The field converted, or `None` where it is absent."""
        value = self.take(name)
        return None if value is None else convert(value)

    def sequence(self, name: str, convert: Callable[[Value], T]) -> tuple[T, ...]:
        """A list of converted elements; absent means empty."""
        value = self.take(name)
        return () if value is None else tuple(convert(item) for item in value.items())

    def table(self, name: str, convert: Callable[[Value], T]) -> dict[str, T]:
        """An object used as a table from names to converted values; absent means empty."""
        value = self.take(name)
        return {} if value is None else value.mapping().entries(convert)

    def entries(self, convert: Callable[[Value], T]) -> dict[str, T]:
        """All fields converted, in the order of the file."""
        fields, self._fields = self._fields, {}
        return {name: convert(value) for name, value in fields.items()}

    def skip(self, *names: str) -> None:
        """Fields that are legal and carry nothing for traffic management."""
        for name in names:
            self._fields.pop(name, None)

    def exactly_one(self, names: Collection[str]) -> str:
        """The one of `names` that is present."""
        present = [name for name in names if name in self]
        if len(present) != 1:
            found = f"found {', '.join(present)}" if present else "found none"
            self.refuse(f"needs exactly one of {', '.join(names)}; {found}")
        return present[0]

    def at_most_one(self, names: Collection[str]) -> str | None:
        present = [name for name in names if name in self]
        if len(present) > 1:
            self.refuse(f"{' and '.join(present)} exclude each other")
        return present[0] if present else None

    def finish(self) -> None:
        """Refuse the first field that nobody has read."""
        for value in self._fields.values():
            if not value.is_null():
                value.refuse("is not a known field, or one that this version does not translate")


def labels(mapping: Mapping, name: str) -> dict[str, str]:
    """A label set."""
    return mapping.table(name, Value.string)


def documents(text: str, file: str) -> Iterator[Value]:
    """The documents of one YAML file, empty ones left out."""
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != _NULL:
                yield Value(node, file, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = int(mark.line) + 1 if mark is not None else 1
        reason = f"is not YAML: {error.problem or error.context or 'syntax error'}"
        raise ResourceRejectedError(Rejection(file, line, "", reason)) from error
    except yaml.YAMLError as error:
        raise ResourceRejectedError(Rejection(file, 1, "", f"is not YAML: {error}")) from error
    finally:
        loader.dispose()
