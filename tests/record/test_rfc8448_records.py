"""Are records the very octets that RFC 8448 shows, sealed and opened, one by one and by the batch?"""

from __future__ import annotations

import pytest

from tlspool_core.tls.bulk import open_batch, seal_batch
from tlspool_core.tls.protection import Protection, protection13
from tlspool_core.tls.record import RecordLayer

# RFC 8448 section 3, "Simple 1-RTT Handshake": keys of application data, and the records under them
CLIENT = ("17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9")
SERVER = ("9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984")
DATA = bytes(range(50))
CLIENT_DATA = (
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae6"
    "3aeebb21694915e4"
)
CLIENT_ALERT = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"
SERVER_DATA = (
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540d"
    "d032e167c2955d"
)
SERVER_ALERT = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"


def keys(pair: tuple[str, str], sequence: int) -> Protection:
    protection = protection13("AES-128-GCM", *map(bytes.fromhex, pair))
    protection.sequence = sequence
    return protection


# the server has sent a NewSessionTicket before
@pytest.mark.parametrize(
    ("pair", "sequence", "data", "alert"),
    [(CLIENT, 0, CLIENT_DATA, CLIENT_ALERT), (SERVER, 1, SERVER_DATA, SERVER_ALERT)],
    ids=["client", "server"],
)
def test_application_data_and_close_notify(pair: tuple[str, str], sequence: int, data: str, alert: str) -> None:
    sealing = keys(pair, sequence)
    assert sealing.seal(23, DATA).hex() == data
    assert sealing.seal(21, b"\x01\x00").hex() == alert
    reading = RecordLayer()
    reading.version = 0x0304
    reading.set_read_protection(keys(pair, sequence))
    reading.feed(bytes.fromhex(data + alert))
    assert reading.next_record() == (23, DATA)
    assert reading.next_record() == (21, b"\x01\x00")


def test_by_the_batch() -> None:
    records = RecordLayer()
    records.set_write_protection(keys(CLIENT, 0))
    records.set_read_protection(keys(CLIENT, 0))
    out, back = memoryview(bytearray(200)), memoryview(bytearray(200))
    filled = seal_batch(records, memoryview(bytearray(DATA + b"?")), len(DATA), out)
    assert out[:filled].hex() == CLIENT_DATA
    opened = open_batch(records, out, 0, filled, back, 0, 10)
    assert (opened.position, opened.odd, bytes(back[: opened.filled])) == (filled, 0, DATA)
