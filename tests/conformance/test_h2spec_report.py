"""How a report of h2spec is read."""

from __future__ import annotations

from conformance.h2spec import read

REPORT = """<?xml version="1.0"?>
<testsuites>
  <testsuite name="3.7. PING" package="generic/3.7" tests="1">
    <testcase package="generic/3.7" classname="Sends a PING frame" time="0.1"></testcase>
    <testcase package="generic/3.7" classname="Sends another" time="0.1"><skipped/></testcase>
  </testsuite>
  <testsuite name="3.8. GOAWAY" package="generic/3.8" tests="1">
    <testcase package="generic/3.8" classname="Sends a GOAWAY frame" time="4">
      <error>Connection closed
PING Frame (opaque_data:h2spec\0\0)</error>
    </testcase>
  </testsuite>
</testsuites>
"""


def test_passed_skipped_and_failed() -> None:
    figure = read(REPORT)
    assert figure.passed == 1
    assert figure.skipped == ["generic/3.7: Sends another"]
    assert figure.failed == ["generic/3.8: Sends a GOAWAY frame: Connection closed PING Frame (opaque_data:h2spec??)"]
