"""Command lines as tables: a flag is a row, parsing and `--help` read the same rows.

argparse cannot say what tidegate has to: Envoy's and pilot-agent's exact spellings, flags that are accepted and mean
nothing (with the reason), a value that may be missing. It also costs the agent a megabyte. Nothing
here knows which flags exist; `tidegate.settings` has the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final, Literal

    Kind = Literal["text", "uint", "port", "switch", "seconds", "list"]
    Value = str | int | bool | float | tuple[str, ...]

__all__ = ["Flag", "Parsed", "format_seconds", "help_text", "parse", "parse_seconds"]

# Go's duration units, which pilot-agent's flags are written in ("1m0s").
_UNITS: Final[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})
_WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Flag:
    """One row of a command's table."""

    long: str  # with its dashes; "" when there is only a short form
    help: str
    default: Value = ""
    kind: Kind = "text"
    short: str = ""
    choices: tuple[str, ...] = ()
    env: str = ""  # the environment variable that gives the default
    unused: str = ""  # why the flag is accepted although it changes nothing
    rejected: str = ""  # why the flag is known and still refused
    optional_value: bool = False  # another flag, or the end of the line, may stand where its value should be

    @property
    def key(self) -> str:
        """The name its value is found under: the long form without dashes."""
        return (self.long or self.short).lstrip("-")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a command line said: a value per flag (given or default), which were given, and the rest."""

    values: Mapping[str, Value]
    given: frozenset[str]
    positional: tuple[str, ...]

    def text(self, key: str) -> str:
        value = self.values[key]
        assert isinstance(value, str)
        return value

    def number(self, key: str) -> int:
        value = self.values[key]
        assert isinstance(value, int)
        return value

    def switch(self, key: str) -> bool:
        value = self.values[key]
        assert isinstance(value, bool)
        return value

    def seconds(self, key: str) -> float:
        value = self.values[key]
        assert isinstance(value, (float, int))
        return float(value)

    def items(self, key: str) -> tuple[str, ...]:
        value = self.values[key]
        assert isinstance(value, tuple)
        return value


def parse(
    flags: Sequence[Flag], argv: Sequence[str], environ: Mapping[str, str] | None = None, *, repeated: bool = True
) -> Parsed:
    """Read a command line against its table.

    `--flag value`, `--flag=value`, `-f value` and `-fvalue` are understood; `--` ends the flags. With `repeated` the
    last of several wins (pilot-agent), without it a second one is an error (Envoy).
    """
    by_name = {name: flag for flag in flags for name in (flag.long, flag.short) if name}
    values: dict[str, Value] = {flag.key: _default(flag, environ or {}) for flag in flags}
    given: set[str] = set()
    positional: list[str] = []
    words = list(argv)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            positional.extend(words[at:])
            break
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, inline = _split(word, by_name)
        flag = by_name.get(name)
        if flag is None:
            raise UsageError(word, "no such flag")
        if flag.rejected:
            raise UsageError(name, flag.rejected)
        if flag.kind == "switch":
            value: Value = True if inline is None else _boolean(name, inline)
        else:
            if inline is None:
                if flag.optional_value and (at == len(words) or _split(words[at], by_name)[0] in by_name):
                    inline = ""
                elif at < len(words):
                    inline = words[at]
                    at += 1
                else:
                    raise UsageError(name, "a value must follow")
            value = _value(flag, name, inline)
        if flag.key in given and not repeated and flag.kind != "list":
            raise UsageError(name, "given more than once")
        if flag.kind == "list" and flag.key in given:
            before = values[flag.key]
            assert isinstance(before, tuple)
            assert isinstance(value, tuple)
            value = before + value
        values[flag.key] = value
        given.add(flag.key)
    return Parsed(values, frozenset(given), tuple(positional))


def parse_seconds(text: str) -> float:
    """Go's durations: "45s", "1m0s", "1.5h", "300ms"; a bare number counts as seconds. Raises ValueError."""
    rest = text.strip()
    if not rest:
        raise ValueError("empty duration")
    try:
        number = float(rest)
    except ValueError:
        pass
    else:
        if not 0 <= number < 1e10:
            raise ValueError(f"duration out of range: {text!r}")
        return number
    total = 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        after = rest[digits:]
        unit = after[: len(after) - len(after.lstrip("hmsunµ"))]
        if not digits or unit not in _UNITS:
            raise ValueError(f"not a duration: {text!r}")
        total += float(rest[:digits]) * _UNITS[unit]
        rest = after[len(unit) :]
    return total


def format_seconds(seconds: float) -> str:
    """A duration for people: "45s", "1m0s", "250ms"."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def help_text(usage: str, about: str, flags: Iterable[Flag]) -> str:
    """The `--help` page of a command."""
    lines = [f"usage: {usage}", "", *_wrap(about, ""), "", "flags:"]
    unused: list[Flag] = []
    for flag in flags:
        if flag.rejected:
            continue
        if flag.unused:
            unused.append(flag)
            continue
        lines.append(f"  {_heading(flag)}")
        lines.extend(_wrap(flag.help + _suffix(flag), "        "))
    if unused:
        lines += ["", "accepted so that existing command lines go on working, without effect:"]
        for flag in unused:
            lines.append(f"  {_heading(flag)}")
            lines.extend(_wrap(flag.unused, "        "))
    return "\n".join(lines) + "\n"


def _heading(flag: Flag) -> str:
    names = ", ".join(name for name in (flag.short, flag.long) if name)
    kinds = {"text": "TEXT", "uint": "NUMBER", "port": "PORT", "seconds": "DURATION", "list": "LIST"}
    if flag.kind == "switch":
        return names
    return f"{names} {'|'.join(flag.choices) if flag.choices else kinds[flag.kind]}"


def _suffix(flag: Flag) -> str:
    notes = []
    if flag.env:
        notes.append(f"environment: {flag.env}")
    if flag.kind == "seconds" and isinstance(flag.default, (int, float)):
        notes.append(f"default: {format_seconds(flag.default)}")
    elif flag.default not in ("", (), False):
        notes.append(f"default: {flag.default}")
    return f" ({', '.join(notes)})" if notes else ""


def _wrap(text: str, indent: str) -> list[str]:
    lines: list[str] = []
    line = indent
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and line.strip():
            lines.append(line)
            line = indent
        line += word if line == indent else f" {word}"
    return [*lines, line] if line.strip() else lines


def _split(word: str, by_name: Mapping[str, Flag]) -> tuple[str, str | None]:
    """A word of the line -> the flag's name and the value that came in the same word, if any."""
    if word in by_name:
        return word, None
    name, equals, value = word.partition("=")
    if equals and name in by_name:
        return name, value
    if not word.startswith("--") and word[:2] in by_name:
        return word[:2], word[2:]
    return word, None


def _default(flag: Flag, environ: Mapping[str, str]) -> Value:
    text = environ.get(flag.env) if flag.env else None
    if not text:
        return flag.default
    return _boolean(flag.env, text) if flag.kind == "switch" else _value(flag, flag.env, text)


def _boolean(name: str, text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise UsageError(name, f"{text!r} is neither true nor false")


def _value(flag: Flag, name: str, text: str) -> Value:
    if flag.choices and text not in flag.choices:
        raise UsageError(name, f"{text!r} is not one of {', '.join(flag.choices)}")
    if flag.kind in ("uint", "port"):
        if not (text.isascii() and text.isdigit()):
            raise UsageError(name, f"{text!r} is not a number")
        number = int(text)
        if number > (65535 if flag.kind == "port" else 2**32 - 1):
            raise UsageError(name, f"{text} is too large")
        return number
    if flag.kind == "seconds":
        try:
            return parse_seconds(text)
        except ValueError:
            raise UsageError(name, f"{text!r} is not a duration (like 45s or 1m0s)") from None
    if flag.kind == "list":
        return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
    return text
