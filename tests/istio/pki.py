"""The keys of a mesh: the CA that istiod signs workloads with, tokens that say who a pod is, a gateway's certificate.

Made anew for each run, with the `cryptography` package. Must not know what is tested with them.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

__all__ = ["Pki"]

_YEAR = datetime.timedelta(days=365)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


class Pki:
    """Files below `directory`: `cacerts/` (istiod's names), `jwks.json`, `gateway/{tls.crt,tls.key,ca.crt}`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._token_key = rsa.generate_private_key(65537, 2048)
        self._ca_key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tidegate tests")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self._ca = self._sign(name, self._ca_key, name, [
            (x509.BasicConstraints(ca=True, path_length=None), True), (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(self._ca_key.public_key()), False),
        ])  # fmt: skip
        self._write()

    @property
    def cacerts(self) -> Path:
        return self.directory / "cacerts"

    @property
    def root(self) -> Path:
        return self.cacerts / "root-cert.pem"

    def _sign(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, issuer: x509.Name, extensions: list[tuple[Any, bool]]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now - _YEAR / 365, now + 10 * _YEAR
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._ca_key, hashes.SHA256())

    def _write(self) -> None:
        self.cacerts.mkdir(parents=True)
        authority = self._ca.public_bytes(serialization.Encoding.PEM)
        for name in ("ca-cert.pem", "root-cert.pem", "cert-chain.pem"):
            (self.cacerts / name).write_bytes(authority)
        (self.cacerts / "ca-key.pem").write_bytes(_pem(self._ca_key))
        gateway = self.directory / "gateway"
        gateway.mkdir()
        key = rsa.generate_private_key(65537, 2048)
        names = x509.SubjectAlternativeName([x509.DNSName("bookinfo.test"), x509.DNSName("*.bookinfo.test")])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bookinfo.test")])
        certificate = self._sign(subject, key, self._ca.subject, [(names, False)])
        (gateway / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (gateway / "tls.key").write_bytes(_pem(key))
        (gateway / "ca.crt").write_bytes(authority)
        (self.directory / "jwks.json").write_text(self.jwks)

    @property
    def jwks(self) -> str:
        numbers = self._token_key.public_key().public_numbers()
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
        key = {"kty": "RSA", "kid": "tests", "use": "sig", "alg": "RS256", "n": _base64(modulus), "e": "AQAB"}
        return json.dumps({"keys": [key]})

    def token(self, **claims: object) -> str:
        """A signed token with these claims, good for a day."""
        now = int(time.time())
        head = _base64(json.dumps({"alg": "RS256", "kid": "tests", "typ": "JWT"}).encode())
        body = _base64(json.dumps({"iat": now, "exp": now + 86_400, **claims}).encode())
        signature = self._token_key.sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{head}.{body}.{_base64(signature)}"

    def pod_token(self, namespace: str, account: str) -> str:
        """What Kubernetes would project into a pod."""
        return self.token(iss="tests", aud=["istio-ca"], sub=f"system:serviceaccount:{namespace}:{account}")
