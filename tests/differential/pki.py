"""Keys and certificates of the TLS scenarios, made anew for each run with the `cryptography` package.

`Pki.path("NAME")` and the `@pki/NAME.pem@`, `@pki/NAME.key@` of scenarios are files; see `_LEAVES` for the names. Must
not know the proxies.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
import tempfile
import warnings
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_SPIFFE = "spiffe://cluster.local/ns/default/sa/"

#: Name: subject, SANs and what is out of the ordinary.
_LEAVES: dict[str, dict[str, Any]] = {
    "server": {"cn": "server", "dns": ["server.example", "*.wild.example"], "uri": [_SPIFFE + "server"],
               "ip": ["127.0.0.1"]},
    "other": {"cn": "other", "dns": ["other.example"]},
    "rsa": {"cn": "rsa", "dns": ["rsa.example"], "rsa": True},
    "client": {"cn": "client", "uri": [_SPIFFE + "client"], "dns": ["client.example", "second.example"]},
    "quoted": {"cn": 'a "quoted", one; with = signs', "uri": [_SPIFFE + "quoted"]},
    "nosan": {"cn": "nosan"},
    "wrongsan": {"cn": "wrong", "uri": ["spiffe://elsewhere/ns/default/sa/client"], "dns": ["wrong.example"]},
    "othersan": {"cn": "client", "uri": ["spiffe://cluster.local.evil/ns/default/sa/client"]},
    "selfsigned": {"cn": "client", "uri": [_SPIFFE + "client"], "ca": None},
    "wrongca": {"cn": "client", "uri": [_SPIFFE + "client"], "dns": ["server.example"], "ca": "evil"},
    "expired": {"cn": "client", "uri": [_SPIFFE + "client"], "dns": ["server.example"], "days": (-10, -1)},
    "future": {"cn": "client", "uri": [_SPIFFE + "client"], "dns": ["server.example"], "days": (1, 10)},
    "serverauth": {"cn": "client", "uri": [_SPIFFE + "client"], "eku": [Usage.SERVER_AUTH]},
    "clientauth": {"cn": "server", "dns": ["server.example"], "eku": [Usage.CLIENT_AUTH]},
}  # fmt: skip


def _limit(context: ssl.SSLContext, options: dict[str, Any]) -> None:
    """`min` and `max`. Python warns of the old versions, which is what is tried here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, set_to in (("min", "minimum_version"), ("max", "maximum_version")):
            if version := options.get(name):
                setattr(context, set_to, getattr(ssl.TLSVersion, version))


class Pki:
    """Two authorities (`ca` and `evil`) and what they have signed, as files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        authorities = {name: self._authority(name) for name in ("ca", "evil")}
        for name, what in _LEAVES.items():
            self._leaf(name, what, authorities.get(what.get("ca", "ca")))

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def client(self, options: dict[str, Any]) -> ssl.SSLContext:
        """`ca` (none: anything goes), `cert`, `alpn`, `min` and `max` (`TLSv1_1` and so on), `ciphers`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if cert := options.get("cert"):
            context.load_cert_chain(self.path(f"{cert}.pem"), self.path(f"{cert}.key"))
        if alpn := options.get("alpn"):
            context.set_alpn_protocols(alpn)
        context.set_ciphers(options.get("ciphers", "DEFAULT:@SECLEVEL=0"))
        _limit(context, options)
        return context

    def server(self, options: dict[str, Any]) -> ssl.SSLContext:
        """`cert`, `ca` (demands a client certificate), `alpn`, `min`, `max`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert = options.get("cert", "server")
        context.load_cert_chain(self.path(f"{cert}.pem"), self.path(f"{cert}.key"))
        context.set_ciphers(options.get("ciphers", "DEFAULT:@SECLEVEL=0"))
        if ca := options.get("ca"):
            context.load_verify_locations(self.path(f"{ca}.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn := options.get("alpn"):
            context.set_alpn_protocols(alpn)
        _limit(context, options)
        return context

    def _authority(self, name: str) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"tidegate {name}")])
        builder = self._builder(subject, key, subject, (-20, 365))
        builder = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), True
        )
        self._write(name, builder.sign(key, hashes.SHA256()), key)
        return subject, key

    def _leaf(
        self, name: str, what: dict[str, Any], authority: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
    ) -> None:
        rsa_key = rsa.generate_private_key(65537, 2048) if what.get("rsa") else None
        key = rsa_key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, what["cn"])])
        issuer, by = authority or (subject, key)
        builder = self._builder(subject, key, issuer, what.get("days", (-1, 30)))
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(n) for n in what.get("uri", [])]
        names += [x509.DNSName(n) for n in what.get("dns", [])]
        names += [x509.IPAddress(ipaddress.ip_address(n)) for n in what.get("ip", [])]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        usage = what.get("eku", [Usage.SERVER_AUTH, Usage.CLIENT_AUTH])
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), False)
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        self._write(name, builder.sign(by, hashes.SHA256()), key)

    @staticmethod
    def _builder(subject: x509.Name, key: Any, issuer: x509.Name, days: tuple[int, int]) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now + days[0] * _DAY, now + days[1] * _DAY
        )

    def _write(self, name: str, certificate: x509.Certificate, key: Any) -> None:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / f"{name}.key").write_bytes(pem)
        (self.directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@functools.cache
def pki() -> Pki:
    """The one of this run."""
    return Pki(Path(tempfile.mkdtemp(prefix="tidegate-pki-")))
