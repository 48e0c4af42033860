"""OCSP responses to staple to our own server certificates, out of a directory that something else keeps fresh.

Theory of operation
-------------------
The directory holds DER responses, one a file, under any name that ends in `.ocsp` or `.der`.  A handshake may not wait for a disk, so
it takes what is in memory; if that was read more than a minute ago, a thread reads the directory again for those to come.
Responses that are outdated, or say anything but "good", are not shown: the peer is better served with none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from tlspool_x509.certificates import utc_now

log = logging.getLogger("tlspool.x509")

REREAD_SECONDS = 60.0
MAX_FILES = 4096
MAX_BYTES = 16_384
_SUFFIXES = (".ocsp", ".der")


def _read_directory(directory: Path) -> Mapping[int, tuple[ocsp.OCSPResponse, bytes]]:
    """Good responses by serial number of the certificate."""
    found: dict[int, tuple[ocsp.OCSPResponse, bytes]] = {}
    paths = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
    for path in paths[:MAX_FILES]:
        try:
            der = path.read_bytes()
            response = ocsp.load_der_ocsp_response(der)
            if len(der) <= MAX_BYTES and response.certificate_status is ocsp.OCSPCertStatus.GOOD:
                found[response.serial_number] = (response, der)
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            log.warning("the OCSP response %s cannot be used: %s", path, error)
    return found


class Staples:
    """One directory."""

    def __init__(self, directory: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._directory = directory
        self._clock = clock
        self._responses: Mapping[int, tuple[ocsp.OCSPResponse, bytes]] = {}
        self._read_at = 0.0
        self._reading = threading.Lock()
        self.read()

    def read(self) -> None:
        """Read the directory now. *May block.*"""
        try:
            self._responses = _read_directory(self._directory)
        except OSError as error:
            log.warning("OCSP responses in %s cannot be read: %s", self._directory, error.strerror)
        self._read_at = time.monotonic()

    def get(self, certificate: x509.Certificate) -> bytes | None:
        """A current response for a certificate, None if there is none. Does not block."""
        if time.monotonic() - self._read_at > REREAD_SECONDS and self._reading.acquire(blocking=False):
            threading.Thread(target=self._read_again, name="ocsp-staples", daemon=True).start()
        response, der = self._responses.get(certificate.serial_number, (None, b""))
        return der if response is not None and self._fits(response, certificate) else None

    def _read_again(self) -> None:
        try:
            self.read()
        finally:
            self._reading.release()

    def _fits(self, response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
        until = response.next_update_utc
        current = until is not None and response.this_update_utc <= self._clock() < until
        return current and response.serial_number == certificate.serial_number
