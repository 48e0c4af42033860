"""Reasons for which a connection ends, each with the alert that tells the peer.

Theory of operation
-------------------
Every misbehaviour of a peer has one exception class, named for the reason, which carries its alert (RFC 8446 section 6.2, RFC 5246
section 7.2.2).  Code that parses or negotiates raises the reason and thinks no further; `TlsConnection` is the one place that
catches a `TlsError`, sends the alert and shuts the connection.  Anything else that escapes there is our own fault: it becomes
`InternalError`.

The first block has one class per alert, for use where the alert says it all and as base; the second block has the finer
reasons.  The text given to a reason goes into logs: it names numbers and fields, never secrets.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class AlertLevel(IntEnum):
    """RFC 8446 section 6."""

    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    """IANA registry "TLS Alerts", with the ones that older versions sent."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    EXPORT_RESTRICTION = 60
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120
    ECH_REQUIRED = 121


class TlsError(Exception):
    """Base of all reasons; `alert` is what the peer is told, None if it is told nothing."""

    alert: ClassVar[AlertDescription | None] = AlertDescription.INTERNAL_ERROR

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text

    @property
    def reason(self) -> str:
        """Name of the reason, for logs and statistics."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else self.reason


# --- one class per alert -------------------------------------------------------------------------------------------------------


class UnexpectedMessage(TlsError):
    """A message, record or content type came where it is not allowed."""

    alert = AlertDescription.UNEXPECTED_MESSAGE


class BadRecordMac(TlsError):
    """A record does not open under the current keys."""

    alert = AlertDescription.BAD_RECORD_MAC


class RecordOverflow(TlsError):
    """A record is longer than its limit."""

    alert = AlertDescription.RECORD_OVERFLOW


class HandshakeFailure(TlsError):
    """No acceptable set of parameters in common."""

    alert = AlertDescription.HANDSHAKE_FAILURE


class BadCertificate(TlsError):
    """A certificate is corrupt or its signatures do not verify."""

    alert = AlertDescription.BAD_CERTIFICATE


class UnsupportedCertificate(TlsError):
    """A certificate is of a type or algorithm that we do not take."""

    alert = AlertDescription.UNSUPPORTED_CERTIFICATE


class CertificateRevoked(TlsError):
    """The certificate was revoked by its signer."""

    alert = AlertDescription.CERTIFICATE_REVOKED


class CertificateExpired(TlsError):
    """The certificate is not currently valid."""

    alert = AlertDescription.CERTIFICATE_EXPIRED


class CertificateUnknown(TlsError):
    """Another issue made the certificate unacceptable."""

    alert = AlertDescription.CERTIFICATE_UNKNOWN


class IllegalParameter(TlsError):
    """A field is well formed but wrong or inconsistent with others."""

    alert = AlertDescription.ILLEGAL_PARAMETER


class UnknownCA(TlsError):
    """The chain leads to no trust anchor."""

    alert = AlertDescription.UNKNOWN_CA


class AccessDenied(TlsError):
    """The credential is valid, but local policy does not admit it."""

    alert = AlertDescription.ACCESS_DENIED


class DecodeError(TlsError):
    """A message cannot be parsed: a length or structure is wrong."""

    alert = AlertDescription.DECODE_ERROR


class DecryptError(TlsError):
    """A signature, Finished or binder does not verify."""

    alert = AlertDescription.DECRYPT_ERROR


class ProtocolVersion(TlsError):
    """The peer's versions are known but not supported."""

    alert = AlertDescription.PROTOCOL_VERSION


class InsufficientSecurity(TlsError):
    """The peer's parameters are too weak for us."""

    alert = AlertDescription.INSUFFICIENT_SECURITY


class InternalError(TlsError):
    """Our fault, or a plugin's: unrelated to what the peer did."""

    alert = AlertDescription.INTERNAL_ERROR


class InappropriateFallback(TlsError):
    """The client fell back to an older version needlessly (RFC 7507)."""

    alert = AlertDescription.INAPPROPRIATE_FALLBACK


class UserCanceled(TlsError):
    """The handshake was given up for a reason outside the protocol, such as a PIN dialogue that was cancelled."""

    alert = AlertDescription.USER_CANCELED


class MissingExtension(TlsError):
    """An extension that is mandatory in this message is not there."""

    alert = AlertDescription.MISSING_EXTENSION


class UnsupportedExtension(TlsError):
    """An extension came in a response without having been offered, or where it may not be."""

    alert = AlertDescription.UNSUPPORTED_EXTENSION


class UnrecognizedName(TlsError):
    """No server by the name that the client sent."""

    alert = AlertDescription.UNRECOGNIZED_NAME


class BadCertificateStatusResponse(TlsError):
    """The stapled OCSP response is invalid or unacceptable."""

    alert = AlertDescription.BAD_CERTIFICATE_STATUS_RESPONSE


class UnknownPskIdentity(TlsError):
    """The pre-shared key identity is not known, and there is no other way to go on."""

    alert = AlertDescription.UNKNOWN_PSK_IDENTITY


class CertificateRequired(TlsError):
    """The client sent no certificate where one was demanded."""

    alert = AlertDescription.CERTIFICATE_REQUIRED


class NoApplicationProtocol(TlsError):
    """No protocol in common in ALPN (RFC 7301)."""

    alert = AlertDescription.NO_APPLICATION_PROTOCOL


# --- what the transport or the peer's own alert did ------------------------------------------------------------------------------


class AlertReceived(TlsError):
    """The peer sent a fatal alert: nothing is sent back. `received` is its code point, unknown ones included."""

    alert = None

    def __init__(self, received: int) -> None:
        name = AlertDescription(received).name.lower() if received in ALERTS_KNOWN else str(received)
        super().__init__(f"alert {name} from the peer")
        self.received = received


class Truncated(TlsError):
    """The transport ended without close_notify."""

    alert = None


ALERTS_KNOWN = frozenset(AlertDescription)

# --- finer reasons: decoding ---------------------------------------------------------------------------------------------------


class TruncatedMessage(DecodeError):
    """A field reaches past the end of its structure."""


class TrailingBytes(DecodeError):
    """Bytes are left after the end of a structure."""


class BadLength(DecodeError):
    """A vector is shorter or longer than its definition allows."""


class DuplicateExtension(DecodeError):
    """Two extensions of one type in one block (RFC 8446 section 4.2)."""


class MalformedExtension(DecodeError):
    """The content of an extension does not parse."""


class EmptyRecord(UnexpectedMessage):
    """A record without content where RFC 8446 section 5.1 or 5.4 forbids it."""


class DuplicateExtensionInAnswer(IllegalParameter):
    """Two extensions of one type in HelloRetryRequest or NewSessionTicket; the RFC names no alert, and this is the usual one."""


class MalformedAlert(DecodeError):
    """An alert is not exactly two bytes (RFC 8446 section 5.1), or is a warning that TLS 1.3 does not have (section 6)."""


class UnknownAlertLevel(IllegalParameter):
    """An alert is neither warning nor fatal."""


# --- finer reasons: order ------------------------------------------------------------------------------------------------------


class UnexpectedHandshakeMessage(UnexpectedMessage):
    """A handshake message that the flow does not have at this point."""


class UnexpectedRecordType(UnexpectedMessage):
    """A content type that is unknown or not allowed at this point."""


class UnexpectedChangeCipherSpec(UnexpectedMessage):
    """change_cipher_spec that is malformed, early, repeated or late."""


class InterleavedRecord(UnexpectedMessage):
    """Another content type came between the fragments of a handshake message (RFC 8446 section 5.1)."""


class ExcessHandshakeData(UnexpectedMessage):
    """Handshake bytes follow a message after which the keys change (RFC 8446 section 5.1)."""


class TooManyEmptyRecords(UnexpectedMessage):
    """A flood of records that carry nothing."""


class TooManyWarnings(UnexpectedMessage):
    """A flood of warning alerts."""


class TooManyKeyUpdates(UnexpectedMessage):
    """A flood of KeyUpdate messages without application data."""


class TooMuchEarlyData(UnexpectedMessage):
    """More refused 0-RTT data than we skip."""


class HandshakeMessageTooLong(IllegalParameter):
    """A handshake message, or all of them together, exceeds the limit of the settings."""


class RenegotiationRefused(TlsError):
    """Someone tried to negotiate again where that is not possible."""

    alert = AlertDescription.NO_RENEGOTIATION


# --- finer reasons: negotiation ------------------------------------------------------------------------------------------------


class NoVersionInCommon(ProtocolVersion):
    """No protocol version in common."""


class DowngradeDetected(IllegalParameter):
    """ServerHello.random ends in the downgrade sentinel (RFC 8446 section 4.1.3)."""


class NoSuiteInCommon(HandshakeFailure):
    """No cipher suite in common."""


class NoGroupInCommon(HandshakeFailure):
    """No named group in common."""


class NoRoleInCommon(HandshakeFailure):
    """Both ends can only be clients."""


class NoSchemeInCommon(HandshakeFailure):
    """No signature scheme in common that one of our credentials can make."""


class NoCredential(HandshakeFailure):
    """None of our credentials fits what the peer accepts."""


class NoCertificateTypeInCommon(UnsupportedCertificate):
    """No certificate type in common (RFC 7250 section 4.2)."""


class UnofferedChoice(IllegalParameter):
    """The peer selected something that we did not offer."""


class WrongScheme(IllegalParameter):
    """A signature is made with a scheme that was not offered or does not fit the key."""


class BadKeyShare(IllegalParameter):
    """A key share has the wrong length, is no point of its group, or gives an all-zero secret."""


class Reflected(IllegalParameter):
    """What we have sent came back to us as if a peer had sent it."""


class DroppedHelloDiffers(IllegalParameter):
    """The two ends of symmetric TLS do not agree on the ClientHello that was dropped."""


class SecondHelloDiffers(IllegalParameter):
    """The ClientHello after HelloRetryRequest changed what it may not (RFC 8446 section 4.1.2)."""


class UselessHelloRetryRequest(IllegalParameter):
    """A HelloRetryRequest that would not change the ClientHello (RFC 8446 section 4.1.4)."""


class SecondHelloRetryRequest(UnexpectedMessage):
    """HelloRetryRequest twice in one connection."""


class UnsolicitedExtension(UnsupportedExtension):
    """A response has an extension that was not offered (RFC 8446 section 4.2)."""


class MisplacedExtension(IllegalParameter):
    """An extension that is known, but not for this message (RFC 8446 section 4.2)."""


class CompressionOffered(IllegalParameter):
    """Compression methods other than null alone (RFC 8446 section 4.1.2)."""


class BadCertificateCompression(BadCertificate):
    """A compressed certificate does not expand to what was announced (RFC 8879 section 4)."""


# --- finer reasons: proofs -----------------------------------------------------------------------------------------------------


class BadSignature(DecryptError):
    """A CertificateVerify or ServerKeyExchange signature does not verify."""


class BadFinished(DecryptError):
    """Finished does not match the transcript."""


class ReflectedHello(IllegalParameter):
    """The ClientHello takes us for the client: it is our own, sent back (RFC 9257 section 4.1)."""


class BadBinder(DecryptError):
    """A PSK binder does not match (RFC 8446 section 4.2.11.2)."""


class NoClientCertificate(HandshakeFailure):
    """TLS 1.2: the client sent no certificate where one was demanded (RFC 5246 section 7.4.6)."""


class NoPeerCertificate(DecodeError):
    """A server's Certificate message is empty (RFC 8446 section 4.4.2.4)."""


class CertificateChainTooLong(BadCertificate):
    """More certificates than we look at."""
