"""xDS messages as Python classes, in a descriptor pool of our own.

`message("envoy.config.cluster.v3.Cluster")` is the class of that message. Everything comes from `data/xds.binpb`, made
by `tools/xds_descriptors.py`; the public Python packages of these types put themselves into the default pool and into
top-level names that collide with each other, so none of them is used, and nothing here touches the default pool.

Files enter the pool when a type of theirs is first asked for: all of them would cost some 60 ms, a listener's worth
costs 8 ms. Only the control plane and the tools use this module: the proxy process passes raw bytes and must not
import it.

Fields are set the protobuf way, with nested messages as dictionaries where that reads better::

    Cluster = xdsapi.message("envoy.config.cluster.v3.Cluster")
    cluster = Cluster(name="zipkin", connect_timeout={"seconds": 1})

`from_dict` and `to_dict` are proto-JSON with the original field names, as Envoy writes it in `/config_dump`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

__all__ = [
    "ANY",
    "CLUSTER",
    "CLUSTER_LOAD_ASSIGNMENT",
    "DESCRIPTOR_SET",
    "DISCOVERY_REQUEST",
    "DISCOVERY_RESPONSE",
    "LISTENER",
    "ROUTE_CONFIGURATION",
    "SECRET",
    "TYPE_URL_PREFIX",
    "any_pack",
    "any_unpack",
    "from_dict",
    "from_json",
    "message",
    "parse",
    "pool",
    "serialize",
    "to_dict",
    "to_json",
    "type_name",
    "type_url",
]

DESCRIPTOR_SET: Final = Path(__file__).with_name("data") / "xds.binpb"
TYPE_URL_PREFIX: Final = "type.googleapis.com/"

ANY: Final = "google.protobuf.Any"
CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
CLUSTER_LOAD_ASSIGNMENT: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION: Final = "envoy.config.route.v3.RouteConfiguration"
SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
DISCOVERY_REQUEST: Final = "envoy.service.discovery.v3.DiscoveryRequest"
DISCOVERY_RESPONSE: Final = "envoy.service.discovery.v3.DiscoveryResponse"


@cache
def pool() -> DescriptorPool:
    """The private pool; it reads a file's descriptor when something in it is first asked for."""
    return DescriptorPool(_database())


@cache
def message(full_name: str) -> type[Any]:
    """The class of a message, by its full name; `KeyError` when there is no such message.

    A `type[Message]`; written `Any` because type checkers cannot know the fields.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))


def type_url(full_name: str) -> str:
    """`type.googleapis.com/` and the name: what `Any` and discovery requests carry."""
    return TYPE_URL_PREFIX + full_name


def type_name(url: str) -> str:
    """The message's full name in a type URL, whatever stands before its last slash."""
    return url.rpartition("/")[2]


def parse(full_name: str, data: bytes) -> Any:
    """Decodes a message; `google.protobuf.message.DecodeError` when the bytes are no such message."""
    return message(full_name).FromString(data)


def serialize(msg: Message) -> bytes:
    """Encodes with map keys in order, so that equal messages give equal bytes."""
    return msg.SerializeToString(deterministic=True)


def any_pack(msg: Message) -> Any:
    """`msg` in a `google.protobuf.Any` of the private pool."""
    return message(ANY)(type_url=type_url(msg.DESCRIPTOR.full_name), value=serialize(msg))


def any_unpack(packed: Any) -> Any:
    """What a `google.protobuf.Any` holds; `KeyError` for a type that the descriptor set lacks."""
    return parse(type_name(packed.type_url), packed.value)


def to_dict(msg: Message) -> dict[str, Any]:
    """proto-JSON as Python values: original field names, `Any` inlined under `@type`."""
    result: dict[str, Any] = json_format.MessageToDict(msg, preserving_proto_field_name=True, descriptor_pool=pool())
    return result


def from_dict(full_name: str, value: Mapping[str, Any]) -> Any:
    """The message that proto-JSON values describe; `json_format.ParseError` names what does not fit."""
    msg = message(full_name)()
    json_format.ParseDict(dict(value), msg, descriptor_pool=pool())
    return msg


def to_json(msg: Message, *, indent: int | None = 1) -> str:
    """`to_dict` as text, by default indented by one space as Envoy's admin does."""
    return json.dumps(to_dict(msg), indent=indent, ensure_ascii=False)


def from_json(full_name: str, text: str) -> Any:
    """`from_dict` for text."""
    msg = message(full_name)()
    json_format.Parse(text, msg, descriptor_pool=pool())
    return msg


class _Database(DescriptorDatabase):
    """Finds files by name and by the symbols in them, for the pool to load one by one.

    Extensions are left out of the index: they are what options are made of, and nobody here reads options. Files that
    only define extensions are still found by name, when another file imports them.
    """

    def __init__(self, files: FileDescriptorSet) -> None:
        super().__init__()
        self._by_name: dict[str, FileDescriptorProto] = {}
        self._by_symbol: dict[str, FileDescriptorProto] = {}
        for file in files.file:
            self._by_name[file.name] = file
            for symbol in _symbols(file):
                self._by_symbol[symbol] = file

    def FindFileByName(self, name: str) -> FileDescriptorProto:
        return self._by_name[name]

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:
        return self._by_symbol[symbol]


@cache
def _database() -> _Database:
    return _Database(FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()))


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for msg in file.message_type:
        yield from _message_symbols(prefix, msg)
    for enum in file.enum_type:
        yield prefix + enum.name
    for service in file.service:
        yield prefix + service.name
        for method in service.method:
            yield f"{prefix}{service.name}.{method.name}"


def _message_symbols(prefix: str, msg: DescriptorProto) -> Iterator[str]:
    name = prefix + msg.name
    yield name
    for nested in msg.nested_type:
        yield from _message_symbols(f"{name}.", nested)
    for enum in msg.enum_type:
        yield f"{name}.{enum.name}"
