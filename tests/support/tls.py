"""For the security tests: an authority of our own, and files of its certificates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Authority", "Pair"]


@dataclass(frozen=True)
class Pair:
    """The PEM files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._issuer = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._issuer.cert_pem.write_to_path(self.file)

    def issue(self, identity: str, file: str = "") -> Pair:
        """A certificate for a host name, an address or an e-mail address."""
        issued = self._issuer.issue_cert(identity)
        stem = file or f"{self._name}-{identity.replace('/', '-')}"
        pair = Pair(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        pair.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(pair.key)
        return pair
