"""`python -m tidegate.demo.bookinfo NAME --version v1 ...`: runs one of the applications."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from tidegate.demo.bookinfo.productpage import ProductPage
from tidegate.demo.bookinfo.server import Client, log, serve
from tidegate.demo.bookinfo.services import Answer, details, ratings, reviews
from tidegate.errors import UsageError
from tidegate.flags import Flag, parse

_FLAGS = (
    Flag("--version", "version of the application", "v1"),
    Flag("--address", "address to listen on", "0.0.0.0"),
    Flag("--port", "port to listen on", 9080, "port"),
    Flag("--httpProxy", "host:port of an HTTP proxy for calls to others"),
)


def main(argv: Sequence[str]) -> None:
    parsed = parse(_FLAGS, argv)
    client = Client(parsed.text("httpProxy"))
    version = parsed.text("version")
    known: dict[str, Callable[[], Answer]] = {
        "productpage": lambda: ProductPage(client),
        "details": details,
        "ratings": ratings,
        "reviews": lambda: reviews(version, client),
    }
    if len(parsed.positional) != 1 or parsed.positional[0] not in known:
        raise UsageError("", f"name one of {', '.join(known)}")
    name = parsed.positional[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log(f"{name}-{version} listening on {parsed.text('address')}:{parsed.number('port')}")
    serve(parsed.text("address"), parsed.number("port"), known[name]())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, UsageError) as error:
        sys.exit(f"bookinfo: {error}")
