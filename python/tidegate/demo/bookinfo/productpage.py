"""productpage: the HTML page, and the JSON behind it, put together from details and reviews."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from tidegate.demo.bookinfo.data import PRODUCTS
from tidegate.demo.bookinfo.server import Call, Client, Reply, reply_json

_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #3d444d); --soft: light-dark(#59636e, #9198a1); }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 0 1.5rem 3rem; }
header { display: flex; justify-content: space-between; align-items: center; padding: 1rem 0; gap: 1rem;
         border-bottom: 1px solid var(--line); flex-wrap: wrap; }
h1 { font-size: 1.9rem; margin: 2rem 0 .5rem; } h2 { font-size: 1.15rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 2.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0; }
dt, small, .who { color: var(--soft); } dd { margin: 0; }
blockquote { margin: 0 0 1.4rem; padding-left: 1rem; border-left: 3px solid var(--line); }
.stars { font-size: 1.25rem; letter-spacing: .1em; }
.black { color: light-dark(#1f2328, #d1d7e0); } .red { color: #d1242f; }
.error { color: #d1242f; }
form { display: inline-flex; gap: .5rem; } input, button { font: inherit; padding: .2rem .6rem; }
"""


class ProductPage:
    """Answers `productpage`'s paths."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, call: Call) -> Reply:
        path = call.path.rstrip("/") or "/"
        if path == "/":
            return Reply(302, b"", headers={"location": "/productpage"})
        if path == "/productpage":
            return self._page(call)
        if path == "/login" and call.method == "POST":
            user = "".join(c for c in call.form.get("username", "") if c.isalnum())
            cookie = {"set-cookie": f"user={user}; Path=/; HttpOnly; SameSite=Lax", "location": "/productpage"}
            return Reply(302, b"", headers=cookie)
        if path == "/logout":
            cookie = {"set-cookie": "user=; Path=/; Max-Age=0", "location": "/productpage"}
            return Reply(302, b"", headers=cookie)
        if path == "/api/v1/products":
            return reply_json(PRODUCTS)
        if path.startswith("/api/v1/products/"):
            return self._api(call, path.removeprefix("/api/v1/products/").split("/"))
        return reply_json({"error": "not found"}, 404)

    def _headers(self, call: Call) -> dict[str, str]:
        """What goes on to the others: tracing, and who is signed in (`end-user`), which rules may route by."""
        headers = call.propagated()
        user = call.cookie("user")
        if user:
            headers["end-user"] = user
        return headers

    def _api(self, call: Call, words: list[str]) -> Reply:
        if not words[0].isdigit():
            return reply_json({"error": "please provide numeric product id"}, 400)
        product = int(words[0])
        kind = words[1] if len(words) == 2 else "details" if len(words) == 1 else ""
        if kind not in ("details", "reviews", "ratings"):
            return reply_json({"error": "not found"}, 404)
        status, body = self._get(kind, product, call)
        return reply_json(body if body is not None else {"error": f"{kind} are currently unavailable"}, status or 503)

    def _get(self, kind: str, product: int, call: Call) -> tuple[int, Any]:
        return self._client.get(f"http://{kind}:9080/{kind}/{product}", self._headers(call))

    def _page(self, call: Call) -> Reply:
        product = PRODUCTS[0]
        details_status, details = self._get("details", 0, call)
        reviews_status, reviews = self._get("reviews", 0, call)
        user = call.cookie("user") or call.headers.get("end-user", "")
        page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Simple Bookstore App</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<header><strong>BookInfo Sample</strong>{_sign_in(user)}</header>
<h1>{escape(product["title"])}</h1><p>{product["descriptionHtml"]}</p>
<div class="columns"><section><h2>Book Details</h2>{_details(details_status, details)}</section>
<section><h2>Book Reviews</h2>{_reviews(reviews_status, reviews)}</section></div></body></html>
"""
        return Reply(200, page.encode(), "text/html; charset=utf-8")


def _sign_in(user: str) -> str:
    if user:
        return f'<span>{escape(user)} (<a href="/logout">sign out</a>)</span>'
    return (
        '<form method="post" action="/login"><input name="username" placeholder="user name" aria-label="user name">'
        "<button>Sign in</button></form>"
    )


def _details(status: int, details: Any) -> str:
    if status != 200 or not isinstance(details, dict):
        return '<p class="error">Error fetching product details! Sorry, they are currently unavailable.</p>'
    rows = {
        "Type": details.get("type"), "Pages": details.get("pages"), "Publisher": details.get("publisher"),
        "Language": details.get("language"), "ISBN-10": details.get("ISBN-10"), "ISBN-13": details.get("ISBN-13"),
    }  # fmt: skip
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in rows.items()) + "</dl>"


def _reviews(status: int, reviews: Any) -> str:
    if status != 200 or not isinstance(reviews, dict):
        return '<p class="error">Error fetching product reviews! Sorry, they are currently unavailable.</p>'
    quotes = []
    for review in reviews["reviews"]:
        stars = ""
        rating = review.get("rating")
        if rating is not None and "stars" in rating:
            count = int(rating["stars"])
            drawn = "★" * count + "☆" * (5 - count)
            stars = f'<div class="stars {escape(rating["color"])}" aria-label="{count} of 5 stars">{drawn}</div>'
        elif rating is not None:
            stars = f'<div class="error">{escape(str(rating.get("error")))}</div>'
        quotes.append(
            f'<blockquote>{escape(review["text"])} <span class="who">— {escape(review["reviewer"])}</span>{stars}'
            "</blockquote>"
        )
    served = escape(str(reviews.get("podname", "")))
    return "".join(quotes) + f"<small>Reviews served by <code>{served}</code></small>"
