"""Does the bench of the engine run, and say of each goal whether it is reached?"""

from __future__ import annotations

from bench import engine


def test_goals_are_judged() -> None:
    rows = engine.handshakes(2)
    lines = engine.text(rows).splitlines()
    assert all(figure.value > 0 for figure in rows.values())
    for name, goal in engine.GOALS.items():
        (line,) = (line for line in lines if line.startswith(name))
        assert line.endswith(f"<= {goal:g}: {'reached' if rows[name].value <= goal else 'missed'}")
