"""Certificates for servers that speak TLS, made anew for each run of the tests by the ``openssl`` program.

It comes with what a TLS-capable server is linked to, so that no package is needed for it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .postgres import Unavailable

__all__ = ["TLS", "Authority", "Certificate"]

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in files."""

    path: str
    key: str

    @property
    def options(self) -> dict[str, str]:
        """As a client takes it that shows it to the server."""
        return {"ssl_certfile": self.path, "ssl_keyfile": self.key}


class Authority:
    """A certificate authority of the tests' own, in ``folder``. Raises :class:`Unavailable` without openssl."""

    def __init__(self, folder: Path, name: str = "tests") -> None:
        self._folder = folder
        self._name = name
        self._key = str(folder / f"{name}.key")
        self.path = str(folder / f"{name}.pem")
        """File of the certificate that clients trust."""
        subject = ("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")
        _openssl("req", "-x509", *_CURVE, "-keyout", self._key, "-out", self.path, "-days", "2", *subject)

    @property
    def options(self) -> dict[str, str]:
        """As a client takes it."""
        return {"ssl_ca_certs": self.path}

    def issue(self, name: str, alternative: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
        """Make a certificate for the names in ``alternative``, as openssl writes them."""
        made = Certificate(*(str(self._folder / f"{self._name}-{name}.{kind}") for kind in ("pem", "key")))
        request, names = (self._folder / f"{self._name}-{name}.{kind}" for kind in ("csr", "names"))
        names.write_text(f"subjectAltName={alternative}\n")
        _openssl("req", *_CURVE, "-keyout", made.key, "-out", str(request), "-subj", f"/CN={name}")
        signed = (
            "-CA",
            self.path,
            "-CAkey",
            self._key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            str(names),
        )
        _openssl("x509", "-req", "-in", str(request), "-out", made.path, *signed)
        return made


@dataclass(frozen=True)
class TLS:
    """How a server speaks TLS."""

    authority: Authority
    """Whose clients and fellow servers it trusts."""
    certificate: Certificate
    """What it shows to clients, and to the servers that it connects to."""
    asks_clients: bool = False
    """Whether clients must show a certificate."""

    @property
    def settings(self) -> dict[str, Any]:
        """Lines of ``redis.conf``."""
        return {
            "tls-cert-file": self.certificate.path,
            "tls-key-file": self.certificate.key,
            "tls-ca-cert-file": self.authority.path,
            "tls-auth-clients": "yes" if self.asks_clients else "no",
            "tls-replication": "yes",
            "tls-cluster": "yes",
        }

    @property
    def of_members(self) -> dict[str, str]:
        """What a client takes to be let in as one of the servers themselves."""
        return {**self.authority.options, **self.certificate.options}


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    except OSError as why:
        raise Unavailable(f"no openssl to make certificates with: {why}") from why
    except subprocess.CalledProcessError as why:
        raise Unavailable(f"openssl {arguments[0]}: {why.stderr[-500:]}") from why
