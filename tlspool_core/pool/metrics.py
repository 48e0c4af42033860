"""What the pool tells monitors: its status as text in the exposition format of Prometheus.

Theory of operation
-------------------
`exposition` turns the object that `status.pool_status` makes into lines, `tlspool_sessions{worker="0"} 12`.  Each process is a value of
the label `worker`, so that a number that falls to zero is a process that was replaced, and a monitor adds up as it likes.  What
plugins measure (`Measurement`) stands under their own names.  Nothing of a session is in it, and no identity.

Format: version 0.0.4 of the text format, https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL = re.compile(r"[a-z_][a-z0-9_]*").fullmatch
_MAX_VALUE = 128  # characters of a label's value

# name in the status, name as a metric, and what it means
_PLAIN = (
    ("sessions", "sessions", "TLS sessions that run now."),
    ("resumed", "sessions_resumed_total", "Sessions that resumed an older one."),
    ("ended", "sessions_ended_total", "Sessions that have ended."),
    ("stopping", "stopping", "1 if the pool was told to stop, and takes no new sessions."),
    ("started", "start_time_seconds", "When the process started, in seconds since 1970."),
    ("reloaded", "config_last_reload_timestamp_seconds", "When the configuration that serves was read, in seconds since 1970."),
    ("plugins_failed", "plugins_failed", "Installed plugins that cannot be used; `tlspool plugins` says why."),
)
_BY_LABEL = (
    ("established", "sessions_established_total", "role", "Sessions that were established, by our role in TLS."),
    ("refused", "sessions_refused_total", "reason", "Sessions that were not, by the error that the application got."),
)


class _Page:
    """Collects samples; those of one metric stand together under its HELP and TYPE, as the format demands."""

    def __init__(self) -> None:
        self._metrics: dict[str, list[str]] = {}

    def add(self, name: str, value: float, help: str, labels: Mapping[str, str]) -> None:
        name = f"tlspool_{name}"
        lines = self._metrics.get(name)
        if lines is None:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines = self._metrics[name] = [f"# HELP {name} {_escape(help)}", f"# TYPE {name} {kind}"]
        shown = ",".join(f'{label}="{_escape(text[:_MAX_VALUE], quoted=True)}"' for label, text in labels.items())
        lines.append(f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}")

    def __iter__(self) -> Iterator[str]:
        for lines in self._metrics.values():
            yield from lines


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text


def exposition(status: Mapping[str, Any]) -> str:
    """The whole page, for a status as `pool_status` makes it."""
    page = _Page()
    page.add("info", 1, "Version of the TLS Pool.", {"version": status["version"]})
    for worker in sorted(status["workers"], key=lambda each: int(each["number"])):
        _add_worker(page, worker, {"worker": str(worker["number"])})
    return "".join(f"{line}\n" for line in page)


def _add_worker(page: _Page, worker: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    for key, name, help in _PLAIN:
        value = worker[key]
        page.add(name, len(value) if isinstance(value, Mapping) else float(value), help, labels)
    for key, name, label, help in _BY_LABEL:
        for text, value in worker[key].items():
            page.add(name, value, help, {**labels, label: text})
    for direction in ("in", "out"):
        help = "Octets of plaintext, from the remote (in) and to it (out), of sessions that have ended."
        page.add("octets_total", worker[f"octets_{direction}"], help, {**labels, "direction": direction})
    page.add("config_last_reload_successful", not worker["reload_fault"], "0 if the newest file was refused.", labels)
    for plugin, measured in worker["measurements"].items():
        for one in measured:
            named = {label: str(text) for label, text in one["labels"].items() if _LABEL(label) and label != "worker"}
            page.add(f"{plugin.replace('-', '_')}_{one['name']}", one["value"], one["help"], {**labels, **named})
