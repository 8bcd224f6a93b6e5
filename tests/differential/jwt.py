"""Tokens and key sets of the differential suite, made anew in each run.

In a configuration `@jwks@` stands for the key set (a JSON string's contents); in a request `@jwt:KEY:CLAIMS@` for a
token, `CLAIMS` a JSON object in which `exp`, `nbf` and `iat` are seconds from now, KEY one of `rs ps es es384 ed
hs` (with the key's id), `anon` (RS256 without an id), `stranger` (of nobody in the set), `other` (an id that is not
in the set) and `none`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

TOKEN = re.compile(rb"@jwt:(\w+):(\{.*?\})@")
SECRET = b"a secret of the differential suite"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _int(value: int, size: int | None = None) -> str:
    return _b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def _keys() -> dict[str, Any]:
    return {
        "rs": rsa.generate_private_key(65537, 2048),
        "stranger": rsa.generate_private_key(65537, 2048),
        "es": ec.generate_private_key(ec.SECP256R1()),
        "es384": ec.generate_private_key(ec.SECP384R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }


@cache
def jwks() -> str:
    """The public half."""
    keys = _keys()
    of_rsa = keys["rs"].public_key().public_numbers()
    document: list[dict[str, str]] = [
        {"kty": "RSA", "kid": "rs", "n": _int(of_rsa.n), "e": _int(of_rsa.e)},
        {"kty": "oct", "kid": "hs", "alg": "HS256", "k": _b64(SECRET)},
        {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": _b64(keys["ed"].public_key().public_bytes_raw())},
    ]
    for kid, curve, size in (("es", "P-256", 32), ("es384", "P-384", 48)):
        point = keys[kid].public_key().public_numbers()
        x, y = _int(point.x, size), _int(point.y, size)
        document.append({"kty": "EC", "kid": kid, "crv": curve, "x": x, "y": y})
    return json.dumps({"keys": document})


def _sign(kind: str, data: bytes) -> bytes:
    keys = _keys()
    if kind in ("rs", "anon", "other"):
        return bytes(keys["rs"].sign(data, padding.PKCS1v15(), hashes.SHA256()))
    if kind == "stranger":
        return bytes(keys["stranger"].sign(data, padding.PKCS1v15(), hashes.SHA256()))
    if kind == "ps":
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return bytes(keys["rs"].sign(data, scheme, hashes.SHA256()))
    if kind in ("es", "es384"):
        digest, size = (hashes.SHA256(), 32) if kind == "es" else (hashes.SHA384(), 48)
        r, s = decode_dss_signature(keys[kind].sign(data, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if kind == "ed":
        return bytes(keys["ed"].sign(data))
    return hmac.new(SECRET, data, hashlib.sha256).digest()


ALGORITHMS = {"ps": "PS256", "es": "ES256", "es384": "ES384", "ed": "EdDSA", "hs": "HS256", "none": "none"}


_LOCK = threading.Lock()


def token(kind: str, claims: str) -> bytes:
    """The same for the same words in one run, whoever asks."""
    with _LOCK:
        return _token(kind, claims)


@cache
def _token(kind: str, claims: str) -> bytes:
    fields = json.loads(claims)
    for name in ("exp", "nbf", "iat"):
        if isinstance(fields.get(name), int):
            fields[name] += int(time.time())
    header = {"alg": ALGORITHMS.get(kind, "RS256")}
    if kind not in ("anon", "none"):
        header["kid"] = {"ps": "rs", "stranger": "rs", "other": "nobody"}.get(kind, kind)
    data = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(fields).encode())}".encode()
    return data + b"." + _b64(_sign(kind, data)).encode()


def expand(data: bytes) -> bytes:
    """With tokens in place of their descriptions."""
    return TOKEN.sub(lambda found: token(found[1].decode(), found[2].decode()), data)
