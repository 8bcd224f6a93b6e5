"""The applications and the plan: what they answer, and that discovery takes all that the demo writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tidegate.demo import plan as plans
from tidegate.demo.app import DEMO_FLAGS, main
from tidegate.demo.bookinfo.productpage import ProductPage
from tidegate.demo.bookinfo.server import Call, Client
from tidegate.demo.bookinfo.services import details, ratings, reviews
from tidegate.demo.host.children import identify
from tidegate.demo.host.sandbox import blocked_ancestor
from tidegate.errors import UsageError
from tidegate.pilot.crd.kinds import read_resources
from tidegate.pilot.services.registry import build_snapshot


@dataclass(frozen=True)
class Others(Client):
    """Stands in for the other services, and remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def get(self, url: str, headers: Any) -> tuple[int, Any]:
        self.asked.append((url, dict(headers)))
        answer = self.answers.get(url.removeprefix("http://").partition(":")[0])
        return (200, answer) if answer is not None else (0, None)


def call(path: str, method: str = "GET", form: dict[str, str] | None = None, **headers: str) -> Call:
    return Call(method, path, {}, form or {}, {k.replace("_", "-"): v for k, v in headers.items()}, "127.0.0.1:1")


def test_details_and_ratings() -> None:
    assert json.loads(details()(call("/details/0")).body)["ISBN-10"] == "1234567890"
    assert json.loads(ratings()(call("/ratings/7")).body) == {"id": 7, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}
    assert details()(call("/details/x")).status == 400


@pytest.mark.parametrize(("version", "colour"), [("v1", None), ("v2", "black"), ("v3", "red")])
def test_reviews_by_version(version: str, colour: str | None) -> None:
    others = Others(answers={"ratings": {"ratings": {"Reviewer1": 3}}})
    found = json.loads(reviews(version, others)(call("/reviews/0", x_request_id="r", end_user="jason")).body)
    first, second = found["reviews"]
    assert found["podname"] == f"reviews-{version}"
    if colour is None:
        assert "rating" not in first
        assert others.asked == []
    else:
        assert first["rating"] == {"stars": 3, "color": colour}
        assert "error" in second["rating"]
        assert others.asked == [("http://ratings:9080/ratings/0", {"x-request-id": "r", "end-user": "jason"})]


def test_the_page_tells_what_is_missing_and_who_is_signed_in() -> None:
    page = ProductPage(Others(answers={"reviews": {"podname": "reviews-v9", "reviews": []}}))
    text = page(call("/productpage", cookie="user=jason")).body.decode()
    assert "Error fetching product details!" in text
    assert "reviews-v9" in text
    assert "jason" in text


def test_signing_in_makes_the_user_known_to_the_others() -> None:
    others = Others()
    page = ProductPage(others)
    reply = page(call("/login", "POST", {"username": "jason; Path=/evil"}))
    assert reply.headers["set-cookie"].startswith("user=jasonPathevil;")
    page(call("/api/v1/products/0/reviews", cookie="user=jason"))
    assert others.asked[-1][1]["end-user"] == "jason"
    assert page(call("/api/v1/products/x")).status == 400
    assert page(call("/nowhere")).status == 404


@pytest.mark.parametrize("isolated", [True, False])
def test_discovery_reads_all_that_the_demo_writes(isolated: bool) -> None:
    plan = plans.make_plan(
        isolated=isolated, run_id="1", prefix="tgd-", network="10.0.0", ports=list(range(20000, 20016)),
        ingress_bind="127.0.0.1", ingress_port=8080,
    )  # fmt: skip
    written = [*plans.registry(plan), *plans.sidecars(plan), *plans.gateway(plan), *plans.destination_rules()]
    assert len({plans.file_name(resource) for resource in written}) == len(written)
    resources, rejections = read_resources("---\n".join(map(plans.text, written)), "demo")
    assert rejections == ()
    snapshot = build_snapshot(resources, plans.DOMAIN)
    assert snapshot.conflicts == ()
    assert len(snapshot.instances_at(plan.workload("reviews-v2").ip)) == 1
    assert len(snapshot.sidecars) == (0 if isolated else 6)
    assert len(plan.host_link) <= 15


def test_closed_directories_are_found(tmp_path: Path) -> None:
    (tmp_path / "closed" / "inside").mkdir(parents=True)
    tmp_path.joinpath("closed").chmod(0o700)
    blocked = blocked_ancestor(tmp_path / "closed" / "inside")
    assert blocked is not None
    assert (tmp_path / "closed").is_relative_to(blocked)
    assert blocked_ancestor(Path("/usr/bin")) is None


def test_a_process_is_told_from_another_with_its_number() -> None:
    first = identify(1)
    assert first is not None
    assert first.started >= 0
    assert identify(2**22 + 1) is None


@pytest.mark.parametrize("argv", [["nobook"], ["bookinfo", "--rules", "/no/such"], ["bookinfo", "--data-plane", "/no"]])
def test_command_lines_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        main(argv)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag.long in shown for flag in DEMO_FLAGS)
