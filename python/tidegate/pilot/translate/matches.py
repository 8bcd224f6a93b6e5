"""A rule's match -> Envoy's `RouteMatch`."""

from __future__ import annotations

from typing import Any

from tidegate.pilot.crd.string_match import StringMatch
from tidegate.pilot.crd.virtual_service import HttpMatch


def string_matcher(match: StringMatch) -> dict[str, Any]:
    """A `type.matcher.v3.StringMatcher`."""
    if match.kind == "regex":
        return {"safe_regex": {"regex": match.value}}
    return {match.kind: match.value}


def _header(name: str, match: StringMatch | None, *, without: bool = False) -> dict[str, Any]:
    matcher: dict[str, Any] = {"name": name, "invert_match": without}
    if match is None:
        matcher["present_match"] = True
    else:
        matcher["string_match"] = string_matcher(match)
        # "Without x: a" holds too when there is no x at all; Envoy by itself would not say so.
        matcher["treat_missing_header_as_empty"] = without
    return matcher


def _path(match: HttpMatch) -> dict[str, Any]:
    if match.uri is None:
        return {"prefix": "/"}
    if match.uri.kind == "regex":
        # Envoy's case_sensitive has no effect on a regex; the flag inside it has.
        return {"safe_regex": {"regex": f"(?i){match.uri.value}" if match.ignore_uri_case else match.uri.value}}
    kind = "path" if match.uri.kind == "exact" else "prefix"
    path: dict[str, Any] = {kind: match.uri.value}
    if match.ignore_uri_case:
        path["case_sensitive"] = {"value": False}
    return path


def route_match(match: HttpMatch) -> dict[str, Any]:
    """A `config.route.v3.RouteMatch`."""
    headers = [_header(name.lower(), value) for name, value in match.headers]
    headers += [_header(name.lower(), value, without=True) for name, value in match.without_headers]
    pseudo = {":scheme": match.scheme, ":method": match.method, ":authority": match.authority}
    headers += [_header(name, value) for name, value in pseudo.items() if value is not None]
    query: list[dict[str, Any]] = [
        {"name": name, "present_match": True}
        if value is None
        else {"name": name, "string_match": string_matcher(value)}
        for name, value in match.query_params
    ]
    return {**_path(match), "headers": headers, "query_parameters": query}


def catches_all(match: HttpMatch) -> bool:
    """Whether no request passes this match by, so that what follows it is never reached."""
    any_path = match.uri is None or (match.uri.kind == "prefix" and match.uri.value == "/")
    others = (match.headers, match.without_headers, match.query_params, match.scheme, match.method, match.authority)
    return any_path and not any(others)


def described_path(match: HttpMatch) -> str:
    """The path part of a decorator's operation."""
    if match.uri is None:
        return "/*"
    return f"{match.uri.value}*" if match.uri.kind == "prefix" else match.uri.value
