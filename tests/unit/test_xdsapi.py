"""xDS messages from the private pool: complete, lazily loaded, and nothing of it in the default pool."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tidegate import xdsapi


def test_messages_are_built_and_printed_the_protobuf_way() -> None:
    cluster = xdsapi.message(xdsapi.CLUSTER)(name="zipkin", connect_timeout={"seconds": 1})
    packed = xdsapi.any_pack(cluster)
    assert packed.type_url == xdsapi.type_url(xdsapi.CLUSTER)
    assert xdsapi.any_unpack(packed) == cluster
    printed = xdsapi.to_dict(packed)
    assert printed == {"@type": packed.type_url, "name": "zipkin", "connect_timeout": "1s"}
    assert xdsapi.from_dict(xdsapi.ANY, printed) == packed
    assert xdsapi.from_json(xdsapi.ANY, xdsapi.to_json(packed)) == packed


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        xdsapi.message("envoy.config.cluster.v3.NoSuchThing")


def test_the_default_pool_stays_clean() -> None:
    xdsapi.message(xdsapi.LISTENER)
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(xdsapi.LISTENER)


def test_every_message_of_the_set_can_be_had() -> None:
    files = FileDescriptorSet.FromString(xdsapi.DESCRIPTOR_SET.read_bytes()).file
    for file in files:
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            assert xdsapi.message(name).DESCRIPTOR.full_name == name


@pytest.mark.parametrize(
    "name",
    [
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "stats.PluginConfig",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        "io.istio.http.peer_metadata.Config",
        "istio.networking.nds.v1.NameTable",
    ],
)
def test_the_istio_messages_are_there(name: str) -> None:
    assert xdsapi.message(name)().SerializeToString() == b""


def test_importing_reads_nothing() -> None:
    code = "import sys; from tidegate import xdsapi; assert xdsapi.pool.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
