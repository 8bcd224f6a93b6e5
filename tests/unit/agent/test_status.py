"""Readiness, as judged from the proxy's own figures."""

from __future__ import annotations

import http.client

from tidegate.agent.admin import _dechunk
from tidegate.agent.status import StatusServer, judge

GOOD = "cluster_manager.cds.update_success: 2\nlistener_manager.lds.update_success: 1\nserver.state: 0\n"
LISTENERS = "virtual::0.0.0.0:15001\n10.0.0.1_9080::10.0.0.1:9080\n0.0.0.0_9080::0.0.0.0:8000\nsix::[fd00::1]:7000\n"


def test_ready_when_configured_and_live() -> None:
    assert judge(GOOD, "", ()) == ""


def test_not_before_clusters_and_listeners_have_come() -> None:
    only_clusters = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_rejected: 3\nserver.state: 0\n"
    assert "lds updates: 0 successful, 3 rejected" in judge(only_clusters, "", ())
    assert judge("", "", ()) != ""


def test_not_while_the_server_drains_or_initialises() -> None:
    assert judge(GOOD.replace("state: 0", "state: 2"), "", ()) == "server is not live, state 2"


def test_an_inbound_listener_for_one_of_the_ports_is_enough() -> None:
    assert judge(GOOD, LISTENERS, (9080, 1)) == ""
    assert judge(GOOD, LISTENERS, (7000,)) == ""
    # The wildcard listener is the outbound side's.
    assert "8000" in judge(GOOD, LISTENERS, (8000,))


def test_the_status_port() -> None:
    server = StatusServer(0, admin_port=1, application_ports=())
    server.start()
    try:
        found = {}
        for method, path in (("GET", "/healthz/ready"), ("GET", "/"), ("POST", "/healthz/ready")):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request(method, path)
            answer = connection.getresponse()
            found[method, path] = answer.status
            answer.read()
            connection.close()
    finally:
        server.close()
        server.join(5)
    assert list(found.values()) == [503, 404, 405]
    assert not server.is_alive()


def test_chunks() -> None:
    assert _dechunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n") == b"abcde"
