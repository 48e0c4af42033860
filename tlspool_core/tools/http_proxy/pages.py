"""What the proxy itself says: pages about problems, the file that tells a browser what to send here, and a word about itself.

Theory of operation
-------------------
A page needs nothing else: no script, no picture, no font, and a policy (Content-Security-Policy) that forbids to load any.  All that
comes from elsewhere is escaped.  A program that does not ask for HTML gets the same in plain text; both find the reason in the field
Proxy-Status (RFC 9209).
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from tlspool_core.tools.http_proxy.problems import Problem
from tlspool_core.tools.http_proxy.rules import HTTP, HTTPS, Pattern, Target
from tlspool_core.tools.http_proxy.wire import Fields, values

NAME: Final = "tlspool"  # of this proxy in Proxy-Status

_POLICY: Final = b"default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 1.1em/1.5 sans-serif; max-width: 38em; margin: 4em auto; padding: 0 1em; }}
h1 {{ font-size: 1.5em; }}
footer {{ border-top: 1px solid; margin-top: 3em; padding-top: .5em; font-size: .8em; }}
</style>
</head>
<body>
<h1>{title}</h1>
{paragraphs}
<footer>This page comes from the proxy of the TLS Pool on your own machine, not from the site. Status {status}.</footer>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole response; `fields` are those beyond its type and length."""

    status: int
    type: str
    body: bytes
    fields: Sequence[tuple[bytes, bytes]] = ()

    def response(self) -> h11.Response:
        """Its head."""
        fields: Fields = [
            (b"Content-Type", self.type.encode()),
            (b"Content-Length", str(len(self.body)).encode()),
            (b"Cache-Control", b"no-store"),
            (b"Content-Security-Policy", _POLICY),
            (b"X-Content-Type-Options", b"nosniff"),
            *self.fields,
        ]
        return h11.Response(status_code=self.status, headers=fields, reason=HTTPStatus(self.status).phrase.encode())


def of_problem(problem: Problem, request: h11.Request | None) -> Page:
    """As the one who asked can read it."""
    accepted = [kind.partition(b";")[0].strip() for kind in values(request.headers, b"accept")] if request is not None else []
    fields: Fields = [(b"Proxy-Status", _proxy_status(problem))]
    if problem.status == 407:
        fields.append((b"Proxy-Authenticate", b'Basic realm="TLS Pool", charset="UTF-8"'))
    if request is None:
        fields.append((b"Connection", b"close"))  # nobody knows where another request would begin
    if problem.retry:
        fields.append((b"Retry-After", str(problem.retry).encode()))
    texts = [text for text in (problem.text, problem.advice) if text]
    if b"text/html" not in accepted:
        return Page(
            problem.status, "text/plain; charset=utf-8", "".join(f"{text}\n" for text in (problem.title, *texts)).encode(), fields
        )
    if problem.retry and request is not None and request.method == b"GET":
        fields.append((b"Refresh", str(problem.retry).encode()))
    paragraphs = "\n".join(f"<p>{html.escape(text)}</p>" for text in texts)
    page = _PAGE.format(title=html.escape(problem.title), paragraphs=paragraphs, status=problem.status)
    return Page(problem.status, "text/html; charset=utf-8", page.encode(), fields)


def _proxy_status(problem: Problem) -> bytes:
    """RFC 9209 section 2; its string takes printable ASCII (RFC 8941 section 3.3.3)."""
    text = "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "'" for letter in f"{problem.title} {problem.text}")
    return f'{NAME}; error={problem.kind}; details="{text}"'.encode()


_PAC: Final = """\
// What goes through the proxy of the TLS Pool; everything else goes its own way.
var rules = %s; // [name, names below it, port (0: any)]
function FindProxyForURL(url, host) {
  var secure = /^(https|wss):/.test(url), at = /^[a-z]+:\\/\\/[^\\/?#]*:([0-9]+)(?=[\\/?#]|$)/.exec(url);
  var port = at ? Number(at[1]) : secure ? %d : %d;
  if (!secure && port == %d) port = %d; // the proxy makes it secure
  host = host.toLowerCase().replace(/\\.$/, "");
  if (/^[0-9.]+$|:/.test(host)) return "DIRECT";
  for (var i = 0; i < rules.length; i++) {
    var name = rules[i][0], below = rules[i][1], wanted = rules[i][2];
    if (wanted && wanted != port) continue;
    if (below ? !name || host.slice(-name.length - 1) == "." + name : host == name) return "PROXY %s";
  }
  return "DIRECT";
}
"""


def pac(patterns: Sequence[Pattern], ourselves: Target) -> Page:
    """The file for a browser's automatic proxy configuration. `ourselves` is where that browser has found us."""
    rules = json.dumps([[one.name, one.below, one.port] for one in patterns])
    text = _PAC % (rules, HTTPS, HTTP, HTTP, HTTPS, ourselves)
    return Page(200, "application/x-ns-proxy-autoconfig", text.encode())


def about(ourselves: Target, has_authority: bool) -> Page:
    """For a person who looks who is here. `ourselves` is where that person has found us."""
    texts = [
        f"This is the proxy of the TLS Pool. Let your browser take its proxy configuration from http://{ourselves}/proxy.pac",
    ]
    if has_authority:
        texts.append(f"The authority that your browser has to trust for this: http://{ourselves}/authority.crt")
    return Page(200, "text/plain; charset=utf-8", "".join(f"{text}\n" for text in texts).encode())
