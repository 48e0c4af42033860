"""Does what the page on web applications says work as it stands there?"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_openssl import World

from tests.tools.conftest import ROOT, Tool, free_port
from tests.tools.test_webservers import as_mary, curl

PAGE = (ROOT / "docs/how-to/web-applications.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)
CONSOLE = [
    line.removeprefix("$ ").split() for block in re.findall(r"```console\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]


@pytest.fixture
def web(world: World, tool: Callable[..., Tool], tmp_path: Path) -> Callable[..., Tool]:
    """Runs a command of the page: its web server, or tlspool itself."""

    def start(command: list[str], *ports: int) -> Tool:
        if command[0] == "tlspool":
            return tool(*command[1:]).reaches(*ports)
        run = f"import runpy, sys; sys.path.insert(0, ''); runpy.run_module({command[0]!r}, run_name='__main__')"
        return tool(*command[1:], program=run, cwd=tmp_path, env={"PYTHONWARNINGS": ""}, good_ends=(0, -signal.SIGTERM)).reaches(
            *ports
        )

    return start


@pytest.mark.parametrize(("number", "kind"), [(0, "uvicorn"), (1, "gunicorn")])
def test_the_first_examples(world: World, web: Callable[..., Tool], tmp_path: Path, number: int, kind: str) -> None:
    (tmp_path / "shop.py").write_text(PYTHON[number])
    port = free_port()
    (command,) = [each for each in CONSOLE if each[0] == kind and "4433" in " ".join(each)]
    web([word.replace(":4433", f"127.0.0.1:{port}").replace("4433", str(port)) for word in command], port)
    assert curl(world, str(port), *as_mary(world)).stdout == "Hello, mary@example.com\n"


def test_classes_of_ones_own(world: World, web: Callable[..., Tool], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PYTHON[0] + PYTHON[2] + PYTHON[3])
    port = free_port()
    web(["uvicorn", "--http", "shop:Shop", "--port", str(port), "shop:app"], port)
    assert curl(world, str(port)).stdout == "Hello, stranger\n"
    port, path = free_port(), str(tmp_path / "http")
    behind, tunnel = CONSOLE[-2:]
    web([word.replace("/run/shop/http", path) for word in behind])
    web([word.replace("/run/shop/http", path).replace(":443", f"127.0.0.1:{port}") for word in tunnel], port)
    assert curl(world, str(port), *as_mary(world), "--retry", "20", "--retry-all-errors").stdout == "Hello, mary@example.com\n"
