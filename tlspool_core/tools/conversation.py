"""Plaintext dialogues before TLS, read strictly: lines and counted bytes out of a socket, with a limit on everything.

Theory of operation
-------------------
What has been read in plaintext when TLS begins was sent by nobody in particular.  If anything is left then, somebody tried to have it
taken for part of the protected dialogue (CVE-2011-0411 and its kin, NO STARTTLS, 2021), so `finish` refuses the connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

LINE: Final = 2048  # bytes in a line, its end included
LINES: Final = 64  # lines and commands in a whole dialogue
TOTAL: Final = 16384  # bytes in a whole dialogue
DIALOGUE_TIME: Final = 30.0  # seconds for a whole dialogue


class DialogueError(OSError):
    """The other side does not offer TLS, or does not keep to the protocol."""


class Hangup(DialogueError):
    """The other side took its leave, in good order, without TLS."""


def printable(text: bytes) -> str:
    """What a stranger sent, for a log."""
    return ascii(text[:100].decode("utf-8", "replace"))


class Conversation:
    """One plaintext dialogue over a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        self._read = 0
        self._lines = 0

    async def _more(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, 1024)
        self._read += len(data)
        if not data:
            raise DialogueError("the other side hung up before TLS began")
        if self._read > TOTAL:
            raise DialogueError("the other side says too much before TLS")
        self._held += data

    async def until(self, end: bytes, limit: int = LINE) -> bytes:
        """All up to and with `end`. Raises DialogueError."""
        while (found := self._held.find(end)) < 0:
            if len(self._held) > limit:
                raise DialogueError("the other side sends too much at once")
            await self._more()
        piece, self._held = self._held[: found + len(end)], self._held[found + len(end) :]
        return piece

    async def line(self) -> bytes:
        """A line without its end. Raises DialogueError."""
        self._lines += 1
        if self._lines > LINES:
            raise DialogueError("the other side talks too long before TLS")
        line = (await self.until(b"\n")).removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in line or b"\0" in line:
            raise DialogueError(f"a line with control characters: {printable(line)}")
        return line

    async def exactly(self, count: int) -> bytes:
        """So many bytes. Raises DialogueError."""
        while len(self._held) < count:
            await self._more()
        piece, self._held = self._held[:count], self._held[count:]
        return piece

    async def say(self, *lines: str) -> None:
        """Send lines."""
        await self.send("".join(f"{line}\r\n" for line in lines).encode())

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def finish(self) -> None:
        """TLS begins. Raises DialogueError if plaintext is left."""
        if self._held:
            raise DialogueError(f"plaintext after STARTTLS, which is an attack or a fault: {printable(self._held)}")
