"""Is a password read from a file that only its owner can read, and from nothing else?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tlspool_srp.secrets import read_password_file


def test_the_first_line_counts(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes("grüße \r\nmore".encode())
    file.chmod(0o600)
    assert read_password_file(file) == "grüße "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_read_or_write(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    file.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600") as caught:
        read_password_file(file)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("what", ["pipe", "device", "directory", "nothing"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "password"
    if what == "pipe":
        os.mkfifo(path, 0o600)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "directory":
        path.mkdir()
    with pytest.raises(OSError, match=r"is no file|Is a directory|No such file"):
        read_password_file(path)
