"""The table that `make bench` prints, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.load import Figure

# row -> largest ratio to haproxy that is aimed at, or (for memory) the largest value in KiB
GOALS = {
    "full handshake, ECDSA P-256": 1.3,
    "full handshake, RSA-2048": 1.3,
    "bulk to backend": 0.7,
    "bulk from backend": 0.7,
    "64-byte round trip, CPU": 1.2,
    "64-byte round trip, latency": 1.2,
}
MEMORY_ROW, MEMORY_GOAL = "idle session, memory", 12.0


class Report:
    """Figures by row and contender, in the order in which they were measured."""

    def __init__(self, contenders: list[str]) -> None:
        self.contenders = contenders
        self.rows: dict[str, dict[str, Figure]] = {}

    def add(self, row: str, contender: str, figure: Figure) -> None:
        self.rows.setdefault(row, {})[contender] = figure

    def ratio(self, row: str) -> float | None:
        """Pool against haproxy."""
        figures = self.rows[row]
        if "pool" not in figures or "haproxy" not in figures:
            return None
        return figures["pool"].value / figures["haproxy"].value

    def goal(self, row: str) -> str:
        """What was aimed at and whether it is reached, as text."""
        ratio = self.ratio(row)
        if row == MEMORY_ROW and "pool" in self.rows[row]:
            return f"<= {MEMORY_GOAL:g} KiB: {verdict(self.rows[row]['pool'].value, MEMORY_GOAL)}"
        if row in GOALS and ratio is not None:
            return f"<= {GOALS[row]:g}: {verdict(ratio, GOALS[row])}"
        return ""

    def text(self) -> str:
        """One line per row."""
        width = max(map(len, self.rows), default=0)
        lines = [
            "  ".join(["".ljust(width), "unit ".rjust(6), *(name.rjust(9) for name in self.contenders), "pool/haproxy", " goal"])
        ]
        for row, figures in self.rows.items():
            cells = [_cell(figures.get(name)) for name in self.contenders]
            ratio = self.ratio(row)
            shown = f"{ratio:.2f}" if ratio is not None else ""
            unit = next(iter(figures.values())).unit
            lines.append("  ".join([row.ljust(width), unit.rjust(6), *cells, shown.rjust(12), f" {self.goal(row)}"]).rstrip())
        return "\n".join(lines)

    def write_json(self, path: Path) -> None:
        rows = {row: {name: asdict(figure) for name, figure in figures.items()} for row, figures in self.rows.items()}
        path.write_text(json.dumps(rows, indent=1) + "\n")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-".rjust(9)
    return (f"{figure.value:.0f}" if figure.value >= 100 else f"{figure.value:.2f}").rjust(9)


def verdict(value: float, goal: float) -> str:
    """Whether a value that should be small is small enough, as a word."""
    return "reached" if value <= goal else "missed"
