"""An application behind a sidecar: `python app.py NAME PORT...`. Answers with what it saw, as JSON.

`x-fail: NAME` makes it answer 503. A connection that does not begin like HTTP is echoed.
"""

from __future__ import annotations

import asyncio
import json
import sys

_METHODS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"PATC", b"OPTI")


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return body


async def serve(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    address, port = writer.get_extra_info("peername")[:2]
    peer = f"{address}:{port}"
    try:
        while first := await reader.read(4):
            if first not in _METHODS:
                writer.write(first)
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                return
            head = first + await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")[:-2]
            method, path, _ = line.split(" ", 2)
            headers: dict[str, str] = {}
            for field in fields:
                key, _, value = field.partition(":")
                headers[key.lower()] = value.strip()
            body = await _read_body(reader, headers)
            status = b"503 Service Unavailable" if headers.get("x-fail") == name else b"200 OK"
            seen = {"app": name, "method": method, "path": path, "peer": peer, "headers": headers, "body": len(body)}
            answer = json.dumps(seen).encode() + b"\n"
            writer.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nx-app: %s\r\ncontent-length: %d\r\n\r\n"
                % (status, name.encode(), len(answer))
                + (b"" if method == "HEAD" else answer)
            )
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(name: str, ports: list[int]) -> None:
    for port in ports:
        await asyncio.start_server(lambda reader, writer: serve(name, reader, writer), "0.0.0.0", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [*map(int, sys.argv[2:])]))
