"""What an HTTP rule of a `VirtualService` does to a request, besides choosing where it goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from tidegate.pilot.crd.reader import Mapping, Value
from tidegate.pilot.crd.string_match import StringMatch, read_string_match

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_GRPC_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


@dataclass(frozen=True)
class HeaderOperations:
    """`set` replaces, `add` appends; names lower case."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeaderChanges:
    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


@dataclass(frozen=True)
class Redirect:
    uri: str | None
    uri_prefix: str | None
    authority: str | None
    port: int | None
    scheme: str | None
    code: int


@dataclass(frozen=True)
class DirectResponse:
    status: int
    body: bytes | None


@dataclass(frozen=True)
class Rewrite:
    """`uri` replaces what was matched: a prefix, or the whole path of an exact or regex match."""

    uri: str | None
    authority: str | None
    uri_regex: tuple[str, str] | None


@dataclass(frozen=True)
class Retries:
    attempts: int
    per_try_timeout: timedelta | None
    retry_on: str | None


@dataclass(frozen=True)
class FaultDelay:
    percent: float
    fixed: timedelta


@dataclass(frozen=True)
class FaultAbort:
    percent: float
    http_status: int | None
    grpc_status: int | None


@dataclass(frozen=True)
class Fault:
    delay: FaultDelay | None
    abort: FaultAbort | None


@dataclass(frozen=True)
class CorsPolicy:
    allow_origins: tuple[StringMatch, ...]
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    max_age: timedelta | None
    allow_credentials: bool | None
    #: `FORWARD` or `IGNORE` preflights of origins that do not match; `None`: as Envoy does by itself.
    unmatched_preflights: str | None


def header_name(value: Value) -> str:
    return check_header_name(value, value.non_empty())


def check_header_name(value: Value, name: str) -> str:
    """`name` in lower case; refuses what cannot be a header name, and pseudo headers."""
    if not _HEADER.fullmatch(name):
        value.refuse(f"{name!r} is not a header name")
    return name.lower()


def _operations(value: Value) -> HeaderOperations:
    operations = value.mapping()

    def pairs(field: str) -> tuple[tuple[str, str], ...]:
        found = operations.take(field)
        if found is None:
            return ()
        table = found.mapping()
        return tuple((check_header_name(table, name), text) for name, text in table.entries(Value.string).items())

    read = HeaderOperations(
        set=pairs("set"),
        add=pairs("add"),
        remove=operations.sequence("remove", header_name),
    )
    operations.finish()
    return read


def read_headers(rule: Mapping) -> HeaderChanges:
    """The field `headers` of a rule or of one of its destinations."""
    field = rule.take("headers")
    if field is None:
        return HeaderChanges()
    headers = field.mapping()
    read = HeaderChanges(
        request=headers.read("request", _operations, HeaderOperations()),
        response=headers.read("response", _operations, HeaderOperations()),
    )
    headers.finish()
    return read


def read_redirect(value: Value) -> Redirect:
    redirect = value.mapping()
    uri = redirect.optional("uri", Value.non_empty)
    prefix = None
    if uri is not None and uri.endswith("%PREFIX()%"):
        value.refuse("uri: %PREFIX()% is not supported")
    code_field = redirect.take("redirectCode")
    code = 301
    if code_field is not None:
        code = code_field.integer(0, 999) or 301
        if code not in (301, 302, 303, 307, 308):
            code_field.refuse(f"must be 301, 302, 303, 307 or 308, is {code}")
    derive = redirect.take("derivePort")
    if derive is not None:
        derive.one_of((), unsupported=("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"))
    read = Redirect(
        uri=uri,
        uri_prefix=prefix,
        authority=redirect.optional("authority", Value.non_empty),
        port=redirect.optional("port", Value.port),
        scheme=redirect.optional("scheme", lambda v: v.one_of(("http", "https"))),
        code=code,
    )
    redirect.finish()
    if not any((read.uri, read.authority, read.port, read.scheme)):
        value.refuse("needs uri, authority, port or scheme")
    return read


def _body(value: Value) -> bytes:
    body = value.mapping()
    kind = body.exactly_one(("string", "bytes"))
    field = body.need(kind)
    if kind == "bytes":
        field.refuse("is not supported, use string")
    data = field.string().encode()
    if len(data) > 1024 * 1024:
        field.refuse("is larger than 1 MiB")
    body.finish()
    return data


def read_direct_response(value: Value) -> DirectResponse:
    response = value.mapping()
    read = DirectResponse(
        status=response.need("status").integer(200, 599),
        body=response.optional("body", _body),
    )
    response.finish()
    return read


def read_rewrite(value: Value) -> Rewrite:
    rewrite = value.mapping()
    rewrite.at_most_one(("uri", "uriRegexRewrite"))

    def regex(field: Value) -> tuple[str, str]:
        fields = field.mapping()
        pair = (fields.need("match").regex(), fields.need("rewrite").string())
        fields.finish()
        return pair

    read = Rewrite(
        uri=rewrite.optional("uri", Value.non_empty),
        authority=rewrite.optional("authority", Value.non_empty),
        uri_regex=rewrite.optional("uriRegexRewrite", regex),
    )
    rewrite.finish()
    if not any((read.uri, read.authority, read.uri_regex)):
        value.refuse("needs uri, authority or uriRegexRewrite")
    return read


def read_retries(value: Value) -> Retries:
    retries = value.mapping()
    read = Retries(
        attempts=retries.read("attempts", lambda v: v.integer(0, 2**31 - 1), 0),
        per_try_timeout=retries.optional("perTryTimeout", lambda v: v.duration(zero=True)),
        retry_on=retries.optional("retryOn", Value.non_empty),
    )
    retries.finish()
    return read


def _percentage(fields: Mapping) -> float:
    which = fields.at_most_one(("percentage", "percent"))
    if which is None:
        return 100.0
    field = fields.need(which)
    if which == "percent":
        return float(field.integer(0, 100))
    percentage = field.mapping()
    value = percentage.read("value", lambda v: v.number(0, 100), 0.0)
    percentage.finish()
    return value


def _delay(value: Value) -> FaultDelay:
    delay = value.mapping()
    exponential = delay.take("exponentialDelay")
    if exponential is not None:
        exponential.refuse("is not supported")
    read = FaultDelay(percent=_percentage(delay), fixed=delay.need("fixedDelay").duration())
    delay.finish()
    return read


def _abort(value: Value) -> FaultAbort:
    abort = value.mapping()
    kind = abort.exactly_one(("httpStatus", "grpcStatus", "http2Error"))
    field = abort.need(kind)
    http_status = grpc_status = None
    if kind == "httpStatus":
        http_status = field.integer(200, 599)
    elif kind == "grpcStatus":
        grpc_status = _GRPC_STATUS.index(field.one_of(_GRPC_STATUS))
    else:
        field.refuse("is not supported")
    read = FaultAbort(percent=_percentage(abort), http_status=http_status, grpc_status=grpc_status)
    abort.finish()
    return read


def read_fault(value: Value) -> Fault:
    fault = value.mapping()
    read = Fault(delay=fault.optional("delay", _delay), abort=fault.optional("abort", _abort))
    fault.finish()
    if read.delay is None and read.abort is None:
        value.refuse("needs delay or abort")
    return read


def read_cors(value: Value) -> CorsPolicy:
    cors = value.mapping()
    cors.at_most_one(("allowOrigin", "allowOrigins"))
    exact = cors.sequence("allowOrigin", lambda v: _origin(v.non_empty()))
    read = CorsPolicy(
        allow_origins=exact or cors.sequence("allowOrigins", read_string_match),
        allow_methods=cors.sequence("allowMethods", lambda v: v.one_of((*_METHODS, "*"))),
        allow_headers=cors.sequence("allowHeaders", Value.non_empty),
        expose_headers=cors.sequence("exposeHeaders", Value.non_empty),
        max_age=cors.optional("maxAge", lambda v: v.duration(timedelta(seconds=1), zero=True)),
        allow_credentials=cors.optional("allowCredentials", Value.boolean),
        unmatched_preflights=cors.optional("unmatchedPreflights", lambda v: v.one_of(("FORWARD", "IGNORE"))),
    )
    cors.finish()
    return read


def _origin(text: str) -> StringMatch:
    # Istio 1.0's `allowOrigin: ["*"]` means any origin.
    return StringMatch("regex", ".*") if text == "*" else StringMatch("exact", text)
