"""What several tests of TLS-KDH share: names, tables, and answers as the credential type gives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import krb5
from kdh_kerberos import SessionKey
from tlspool_kdh.codes import FORM, SCHEMES, SUITES
from tlspool_kdh.exchange import TicketCredential, TicketPeer
from tlspool_kdh.mit import Sought, Source
from tlspool_kdh.tickets import ClientTicket, Principal, Service
from tlspool_kdh.wallet import Tickets

from tlspool_core.api import EngineParts
from tlspool_core.testing.peers import Answers
from tlspool_core.tls.questions import AnyQuestion, ExaminePeer, Sign

REALM = "KDH.EXAMPLE"
WEB = "http/web.kdh.example@KDH.EXAMPLE"
MAIL = "imap/mail.kdh.example@KDH.EXAMPLE"
PARTS = EngineParts((FORM,), SUITES, SCHEMES)


@dataclass
class TicketAnswers(Answers):
    """As the credential type answers."""

    service: Service | None = None

    def answer(self, question: AnyQuestion) -> object:
        match question:
            case Sign(credential=TicketCredential() as credential):
                return credential.sign(question.scheme, question.content)
            case ExaminePeer(certificate_type=224):
                assert self.service is not None
                return TicketPeer(question.entries, self.service.open(question.entries[0].data), self.service)
        return Answers.answer(self, question)


def source(principal: str = "", **where: Any) -> Source:
    """A source for one principal."""
    return Source((Sought(Principal.parse(principal)),) if principal else (), **where)


def fetch(whose: Source, service: str) -> ClientTicket:
    """A ticket, asked of the KDC now."""
    return Tickets().get(whose, (Principal.parse(service),))


def service_key(realm: Any) -> SessionKey:
    """The key of the web service, for the other implementation."""
    context = krb5.init_context()
    keytab = krb5.kt_resolve(context, realm.services.encode())
    key = krb5.kt_get_entry(context, keytab, krb5.parse_name_flags(context, WEB.encode()), 0, 18).key
    return SessionKey(key.enctype, key.data)


def soon(done: Callable[[], bool]) -> None:
    """Wait until something in the background has happened."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)
