"""Make `python/tidegate/data/xds.binpb`, the one source of every xDS type in this repository.

The published Envoy API comes as the `xds-protos` wheel: generated Python modules, each carrying its
`FileDescriptorProto` as a bytes literal. The wheel owns top-level names (`google`, `envoy`, `test`) that collide with
other packages, so it is never installed and never imported: the literals are read out of the source text. Added to
them are the `google.protobuf` files they import (from the `protobuf` runtime of this project) and the few `istio.*`
messages that the Envoy API lacks, described in `istio_files()` below.

The result is a `FileDescriptorSet`, dependencies first and names sorted where the order is free. It has no source info;
options are kept, because Envoy's validation rules (`validate.rules`) and its marks for sensitive fields live there. The
same wheel and the same protobuf runtime give the same bytes.

    python tools/xds_descriptors.py            # downloads the pinned wheel, writes the file
    python tools/xds_descriptors.py --check    # the same, but only compares: exit 1 when the committed file differs
    python tools/xds_descriptors.py --wheel F  # takes a wheel that is already here
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

WHEEL = "xds-protos==1.85.0"
WHEEL_SHA256 = "e1e7bfd9936389936b2c85660d9db0dae380f12678a594b983da40dd472f1760"
OUTPUT = Path(__file__).resolve().parent.parent / "python" / "tidegate" / "data" / "xds.binpb"

# What is kept, by file name; whatever these import is kept with them. The v2 API and what Envoy calls "alpha" of it
# stay out: the seed's v2 configuration is converted as JSON and never needs v2 messages.
ROOTS = re.compile(
    r"^(envoy/(admin|config|data|extensions|service|type|watchdog)/(.*/)?v3/"
    r"|envoy/type/"
    r"|(udpa|xds)/"
    r"|google/rpc/status\.proto$"
    r"|opentelemetry/proto/(collector/)?(common|logs|metrics|resource|trace)/)"
)
# Matched by ROOTS, needed by nothing.
LEFT_OUT = re.compile(r"/v2(alpha\d?)?/|^envoy/type/(?!v3/|matcher/v3/|metadata/v3/|tracing/v3/|http/v3/)")

_WELL_KNOWN = (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)

FieldKind: TypeAlias = "FieldDescriptorProto.Type.ValueType | str"
"""A scalar type, a message's full name, or an enum's full name with a leading `enum `."""

_STRING = FieldDescriptorProto.TYPE_STRING
_BOOL = FieldDescriptorProto.TYPE_BOOL


def wheel_files(wheel: Path) -> dict[str, FileDescriptorProto]:
    """Every descriptor in the wheel, by file name, read from the text of its `*_pb2.py` modules."""
    files: dict[str, FileDescriptorProto] = {}
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith("_pb2.py"):
                continue
            serialized = _serialized_file(archive.read(member).decode())
            if serialized is None:
                raise SystemExit(f"{wheel.name}: no descriptor found in {member}")
            descriptor = FileDescriptorProto.FromString(serialized)
            files[descriptor.name] = descriptor
    return files


def _serialized_file(source: str) -> bytes | None:
    """The argument of `AddSerializedFile(b'...')` in a generated module."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "AddSerializedFile"
            and len(node.args) == 1
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, bytes)
        ):
            return node.args[0].value
    return None


def well_known_files() -> dict[str, FileDescriptorProto]:
    """The `google.protobuf` files, as this project's protobuf runtime has them."""
    files = (FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) for module in _WELL_KNOWN)
    return {file.name: file for file in files}


def _message(name: str, *fields: FieldDescriptorProto) -> DescriptorProto:
    return DescriptorProto(name=name, field=fields)


def _field(name: str, number: int, kind: FieldKind, *, repeated: bool = False) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    field = FieldDescriptorProto(name=name, number=number, label=label)
    if not isinstance(kind, str):
        field.type = kind
    elif kind.startswith("enum "):
        field.type = FieldDescriptorProto.TYPE_ENUM
        field.type_name = kind.removeprefix("enum ")
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = kind
    return field


def _map_field(owner: DescriptorProto, scope: str, name: str, number: int, value: FieldKind) -> None:
    """Adds `map<string, value> name = number` to `owner`, whose full name is `scope`."""
    entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    entry = _message(entry_name, _field("key", 1, _STRING), _field("value", 2, value))
    entry.options.map_entry = True
    owner.nested_type.append(entry)
    owner.field.append(_field(name, number, f"{scope}.{entry_name}", repeated=True))


def _enum(owner: DescriptorProto | FileDescriptorProto, name: str, *values: str) -> None:
    enum = owner.enum_type.add(name=name)
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)


def _oneof(owner: DescriptorProto, name: str, *fields: FieldDescriptorProto) -> None:
    index = len(owner.oneof_decl)
    owner.oneof_decl.add(name=name)
    for field in fields:
        field.oneof_index = index
        owner.field.append(field)


def istio_files() -> dict[str, FileDescriptorProto]:
    """The Istio extension messages that istiod puts into Envoy resources, with their public names and numbers."""
    files = (_alpn(), _stats(), _metadata_exchange(), _peer_metadata(), _workload_discovery(), _name_table())
    return {file.name: file for file in files}


def _file(name: str, package: str, *dependencies: str) -> FileDescriptorProto:
    return FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=dependencies)


def _alpn() -> FileDescriptorProto:
    package = "istio.envoy.config.filter.http.alpn.v2alpha1"
    scope = f".{package}.FilterConfig"
    file = _file("istio/envoy/config/filter/http/alpn/v2alpha1/config.proto", package)
    config = _message(
        "FilterConfig", _field("alpn_override", 1, f".{package}.FilterConfig.AlpnOverride", repeated=True)
    )
    _enum(config, "Protocol", "HTTP10", "HTTP11", "HTTP2")
    override = _message(
        "AlpnOverride",
        _field("upstream_protocol", 1, f"enum {scope}.Protocol"),
        _field("alpn_override", 2, _STRING, repeated=True),
    )
    config.nested_type.append(override)
    file.message_type.append(config)
    return file


def _stats() -> FileDescriptorProto:
    file = _file("istio/stats/config.proto", "stats", "google/protobuf/duration.proto")
    metric = _message("MetricConfig")
    _map_field(metric, ".stats.MetricConfig", "dimensions", 1, _STRING)
    metric.field.extend(
        [
            _field("name", 2, _STRING),
            _field("tags_to_remove", 3, _STRING, repeated=True),
            _field("match", 4, _STRING),
            _field("drop", 5, _BOOL),
        ]
    )
    definition = _message(
        "MetricDefinition",
        _field("name", 1, _STRING),
        _field("value", 2, _STRING),
        _field("type", 3, "enum .stats.MetricType"),
    )
    config = _message(
        "PluginConfig",
        _field("disable_host_header_fallback", 6, _BOOL),
        _field("tcp_reporting_duration", 7, ".google.protobuf.Duration"),
        _field("metrics", 8, ".stats.MetricConfig", repeated=True),
        _field("definitions", 9, ".stats.MetricDefinition", repeated=True),
        _field("reporter", 10, "enum .stats.Reporter"),
        _field("rotation_interval", 11, ".google.protobuf.Duration"),
        _field("graceful_deletion_interval", 12, ".google.protobuf.Duration"),
    )
    _enum(file, "MetricType", "COUNTER", "GAUGE", "HISTOGRAM")
    _enum(file, "Reporter", "UNSPECIFIED", "SERVER_GATEWAY")
    file.message_type.extend([metric, definition, config])
    return file


def _metadata_exchange() -> FileDescriptorProto:
    file = _file("istio/tcp/metadataexchange/config.proto", "envoy.tcp.metadataexchange.config")
    file.message_type.append(
        _message(
            "MetadataExchange",
            _field("protocol", 1, _STRING),
            _field("enable_discovery", 2, _BOOL),
            _field("additional_labels", 3, _STRING, repeated=True),
        )
    )
    return file


def _peer_metadata() -> FileDescriptorProto:
    package = "io.istio.http.peer_metadata"
    scope = f".{package}.Config"
    file = _file("istio/http/peer_metadata/config.proto", package)
    config = _message(
        "Config",
        _field("downstream_discovery", 1, f"{scope}.DiscoveryMethod", repeated=True),
        _field("upstream_discovery", 2, f"{scope}.DiscoveryMethod", repeated=True),
        _field("downstream_propagation", 3, f"{scope}.PropagationMethod", repeated=True),
        _field("upstream_propagation", 4, f"{scope}.PropagationMethod", repeated=True),
        _field("shared_with_upstream", 5, _BOOL),
        _field("additional_labels", 6, _STRING, repeated=True),
    )
    discovery = _message("DiscoveryMethod")
    _oneof(
        discovery,
        "method_specifier",
        _field("baggage", 1, f"{scope}.Baggage"),
        _field("workload_discovery", 2, f"{scope}.WorkloadDiscovery"),
        _field("istio_headers", 3, f"{scope}.IstioHeaders"),
    )
    propagation = _message("PropagationMethod")
    _oneof(propagation, "method_specifier", _field("istio_headers", 1, f"{scope}.IstioHeaders"))
    config.nested_type.extend(
        [
            _message("Baggage"),
            _message("WorkloadDiscovery"),
            _message("IstioHeaders", _field("skip_external_clusters", 1, _BOOL)),
            discovery,
            propagation,
        ]
    )
    file.message_type.append(config)
    return file


def _workload_discovery() -> FileDescriptorProto:
    source = "envoy/config/core/v3/config_source.proto"
    file = _file("istio/workload/extension.proto", "istio.workload", source)
    file.message_type.append(
        _message("BootstrapExtension", _field("config_source", 1, ".envoy.config.core.v3.ConfigSource"))
    )
    return file


def _name_table() -> FileDescriptorProto:
    package = "istio.networking.nds.v1"
    scope = f".{package}.NameTable"
    file = _file("istio/networking/nds/v1/nds.proto", package)
    table = _message("NameTable")
    info = _message(
        "NameInfo",
        _field("ips", 1, _STRING, repeated=True),
        _field("registry", 2, _STRING),
        _field("shortname", 3, _STRING),
        _field("namespace", 4, _STRING),
        _field("alt_hosts", 5, _STRING, repeated=True),
    )
    table.nested_type.append(info)
    _map_field(table, scope, "table", 1, f"{scope}.NameInfo")
    table.field.append(_field("name_info", 2, f"{scope}.NameInfo"))
    file.message_type.append(table)
    return file


def add_newer_fields(files: dict[str, FileDescriptorProto]) -> None:
    """What Envoy 1.40 has and the published wheel lacks, as the descriptors in Envoy's own binary say it."""
    protocol = files["envoy/config/core/v3/protocol.proto"]
    http2 = next(message for message in protocol.message_type if message.name == "Http2ProtocolOptions")
    header_field_size = _field("max_header_field_size_kb", 19, ".google.protobuf.UInt32Value")
    # [(validate.rules).uint32 = {gte: 64, lte: 256}]
    header_field_size.options.MergeFromString(bytes.fromhex("fa42072a051880022840"))
    fields = [
        _field("enable_huffman_encoding", 18, ".google.protobuf.BoolValue"),
        header_field_size,
        _field("disallow_obs_text", 20, ".google.protobuf.BoolValue"),
        _field("stream_reset_burst", 21, ".google.protobuf.UInt64Value"),
        _field("stream_reset_rate", 22, ".google.protobuf.UInt64Value"),
    ]
    known = {field.number for field in http2.field}
    if known & {field.number for field in fields}:
        raise SystemExit("the wheel has caught up: drop what it knows from add_newer_fields()")
    http2.field.extend(fields)


def closure(files: dict[str, FileDescriptorProto], roots: Iterable[str]) -> FileDescriptorSet:
    """The roots and everything they import, dependencies first."""
    result = FileDescriptorSet()
    done: set[str] = set()

    def visit(name: str, importer: str) -> None:
        if name in done:
            return
        file = files.get(name)
        if file is None:
            raise SystemExit(f"{importer} imports {name}, which is nowhere")
        done.add(name)
        for dependency in sorted(file.dependency):
            visit(dependency, name)
        file.ClearField("source_code_info")
        result.file.append(file)

    for root in sorted(roots):
        visit(root, "the selection")
    return result


def build(wheel: Path) -> bytes:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name}: sha256 is {digest}, want {WHEEL_SHA256} ({WHEEL})")
    istio = istio_files()
    files = wheel_files(wheel) | well_known_files() | istio
    add_newer_fields(files)
    roots = [name for name in files if ROOTS.match(name) and not LEFT_OUT.search(name)]
    return closure(files, [*roots, *istio]).SerializeToString(deterministic=True)


def download(directory: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(directory),
        WHEEL,
    ]
    subprocess.run(command, check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of downloading it")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--check", action="store_true", help="only compare with what is committed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = build(options.wheel or download(Path(directory)))
    if options.check:
        if options.output.read_bytes() == data:
            return 0
        print(f"{options.output} is not what this script makes: run it and commit the result", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(data)
    print(f"{options.output}: {len(FileDescriptorSet.FromString(data).file)} files, {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
