"""The books, in the words of Istio's sample."""

from __future__ import annotations

from typing import Any, Final

PRODUCTS: Final[list[dict[str, Any]]] = [
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": (
            '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: The Comedy of Errors '
            "is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical "
            "comedies, with a major part of the humour coming from slapstick and mistaken identity, in addition to "
            "puns and word play."
        ),
    }
]

DETAILS: Final[dict[str, Any]] = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}

REVIEWS: Final = (
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    ("Reviewer2", "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by "
                  "Shakespeare."),
)  # fmt: skip

RATINGS: Final = {"Reviewer1": 5, "Reviewer2": 4}
