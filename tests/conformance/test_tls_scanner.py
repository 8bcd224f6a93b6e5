"""A public scanner (sslyze, of the peers' environment) finds nothing on our endpoint that Envoy's does not have."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from string import Template
from typing import Any

import pytest

from differential.backend import free_port
from differential.pki import pki
from differential.proxies import running
from tidegate.peer import envoy_binary

pytestmark = pytest.mark.timeout(240)
_BOOTSTRAP = Template(Path(__file__).with_name("scanned.yaml").read_text())
_FINDINGS = ("heartbleed", "openssl_ccs_injection", "robot", "session_renegotiation", "tls_compression",
             "tls_fallback_scsv", "tls_extended_master_secret", "tls_1_3_early_data")  # fmt: skip

_SCANS = ("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--reneg", "--early_data", "--robot",
          "--ems", "--openssl_ccs", "--heartbleed", "--fallback", "--compression", "--resum")  # fmt: skip


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: leaf for key, each in value.items() for name, leaf in _flatten(f"{prefix}.{key}", each).items()}
    return {prefix: value}


def _findings(kind: str, directory: Path) -> tuple[dict[str, Any], set[str]]:
    """What each test of the scanner came to, and the protocol versions with the cipher suites they may use."""
    port, admin = free_port(), free_port()
    text = _BOOTSTRAP.substitute(
        PORT=port, ADMIN=admin, CERTIFICATE=pki().path("server.pem"), KEY=pki().path("server.key")
    )
    report = directory / f"{kind}.json"
    scanner = Path(envoy_binary()).parents[5] / "bin" / "sslyze"
    with running(kind, text, admin_port=admin, port=port, directory=directory, log=directory / f"{kind}.log"):
        # Its exit status says whether the endpoint follows Mozilla's recommendation, which is not asked here.
        scan = [str(scanner), *_SCANS, "--mozilla_config", "disable", f"--json_out={report}", "--sni", "server.example",
                   f"127.0.0.1:{port}"]  # fmt: skip
        subprocess.run(scan, capture_output=True, check=False, timeout=200)
    [server] = json.loads(report.read_text())["server_scan_results"]
    assert server["connectivity_status"] == "COMPLETED", server
    results = server["scan_result"]
    found: dict[str, Any] = {}
    offered: set[str] = set()
    for name, result in results.items():
        if name in _FINDINGS:
            assert result["status"] == "COMPLETED", (name, result)
            found |= _flatten(name, result["result"])
        if name.endswith("_cipher_suites"):
            assert result["status"] == "COMPLETED", (name, result)
            accepted = result["result"]["accepted_cipher_suites"]
            offered |= {f"{name} {suite['cipher_suite']['name']}" for suite in accepted}
    return found, offered


def test_nothing_that_envoy_does_not_have(tmp_path: Path) -> None:
    theirs, their_suites = _findings("envoy", tmp_path)
    ours, our_suites = _findings("tidegate", tmp_path)
    assert {name for name in theirs if theirs[name] is True} >= {"tls_fallback_scsv.supports_fallback_scsv"}
    assert {name: (ours[name], value) for name, value in theirs.items() if ours.get(name) != value} == {}
    assert our_suites <= their_suites
    assert any(suite.startswith("tls_1_3") for suite in our_suites)
    assert any(suite.startswith("tls_1_2") for suite in our_suites)
