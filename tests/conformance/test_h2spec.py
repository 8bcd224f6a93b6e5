"""h2spec --strict: every one of its cases passes on our listener. `make h2spec` prints Envoy's figure beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.h2spec import ALL, measure


@pytest.mark.timeout(900)
def test_all_of_h2spec(tmp_path: Path) -> None:
    figure = measure("tidegate", tmp_path, "HTTP2")
    assert not figure.failed
    assert not figure.skipped
    assert figure.passed == ALL


@pytest.mark.timeout(900)
def test_all_but_the_broken_preface_where_http1_is_spoken_too(tmp_path: Path) -> None:
    """With codec_type AUTO what does not begin like HTTP/2 is HTTP/1, and is answered so, as by Envoy."""
    figure = measure("tidegate", tmp_path)
    assert [line for line in figure.failed if not line.startswith("http2/3.5: Sends invalid connection preface")] == []
    assert not figure.skipped
    assert figure.passed >= ALL - 1
