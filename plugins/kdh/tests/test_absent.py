"""Does a pool run without Kerberos where its libraries are not there, and say so?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tlspool_core.client import Pool

_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"
_CLI = "from tlspool_core.cli import main; main()"


def test_the_pool_runs_without_the_kerberos_library(tmp_path: Path) -> None:
    """As where the bindings were not built: the plugin is listed with its reason, and all else serves."""
    (tmp_path / "krb5.py").write_text('raise ImportError("libkrb5.so.3: cannot open shared object file")\n')
    config = tmp_path / "pool.toml"
    config.write_text(f'[[socket]]\npath = "{tmp_path}/s"\n[config]\nbackend = "lmdb"\npath = "{tmp_path}/db"\n')
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TLSPOOL_CONFIG": str(config)}
    done = subprocess.run(
        [sys.executable, "-c", _CLI, "--json", "plugins"], env=environment, capture_output=True, text=True, check=False
    )
    found = next(one for one in json.loads(done.stdout) if one["name"] == "kdh")
    assert "libkrb5.so.3: cannot open shared object file" in json.dumps(found)
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([sys.executable, "-c", _RUN, str(config)], stderr=log, env=environment) as pool,
    ):
        try:
            with Pool(tmp_path / "s", patience=15) as client:
                client.ping()
        finally:
            pool.send_signal(signal.SIGTERM)
            assert pool.wait(20) == 0
