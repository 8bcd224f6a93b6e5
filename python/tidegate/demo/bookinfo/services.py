"""details, reviews and ratings: what each answers on its paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tidegate.demo.bookinfo.data import DETAILS, RATINGS, REVIEWS
from tidegate.demo.bookinfo.server import Call, Client, Reply, reply_json

Answer = Callable[[Call], Reply]
#: Star colours by version of reviews; v1 shows no stars.
_COLOURS: Final = {"v2": "black", "v3": "red"}


def _product_id(path: str, prefix: str) -> int | None:
    rest = path.removeprefix(prefix)
    return int(rest) if path.startswith(prefix) and rest.isdigit() else None


def details() -> Answer:
    def answer(call: Call) -> Reply:
        product = _product_id(call.path, "/details/")
        if product is None:
            return reply_json({"error": "please provide numeric product id"}, 400)
        return reply_json({"id": product, **DETAILS})

    return answer


def ratings() -> Answer:
    stars = dict(RATINGS)

    def answer(call: Call) -> Reply:
        product = _product_id(call.path, "/ratings/")
        if product is None:
            return reply_json({"error": "please provide numeric product id"}, 400)
        return reply_json({"id": product, "ratings": stars})

    return answer


def reviews(version: str, client: Client) -> Answer:
    """v1 knows no stars; v2 and v3 ask ratings for them."""

    def stars(call: Call, product: int) -> dict[str, Any]:
        status, body = client.get(f"http://ratings:9080/ratings/{product}", call.propagated())
        return body["ratings"] if status == 200 and isinstance(body, dict) else {}

    def answer(call: Call) -> Reply:
        product = _product_id(call.path, "/reviews/")
        if product is None:
            return reply_json({"error": "please provide numeric product id"}, 400)
        found: list[dict[str, Any]] = [{"reviewer": reviewer, "text": text} for reviewer, text in REVIEWS]
        if version in _COLOURS:
            given = stars(call, product)
            for review in found:
                if review["reviewer"] in given:
                    review["rating"] = {"stars": given[review["reviewer"]], "color": _COLOURS[version]}
                else:
                    review["rating"] = {"error": "Ratings service is currently unavailable"}
        return reply_json(
            {"id": str(product), "podname": f"reviews-{version}", "clustername": "null", "reviews": found}
        )

    return answer
