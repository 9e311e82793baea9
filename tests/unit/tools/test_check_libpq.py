"""tools/check-libpq refuses what make LIBPQ=system cannot use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from installation import TOP

CHECK = TOP / "tools/check-libpq"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("17", ""),
        ("18", ""),
        (
            "16",
            "LIBPQ=system needs libpq 17 or later, and {headers} has libpq 16: use LIBPQ=wheel\n",
        ),
        (None, "LIBPQ=system needs the header files of libpq 17 or later (Debian: libpq-dev)\n"),
    ],
)
def test_check_libpq(tmp_path: Path, version: str | None, message: str) -> None:
    """The header files must be there and of libpq 17 or later; one sentence says what is not."""
    if version:
        (tmp_path / "libpq-fe.h").touch()
        (tmp_path / "pg_config.h").write_text(f'#define PG_MAJORVERSION "{version}"\n')
    program = tmp_path / "pg_config"
    program.write_text(f"#!/bin/sh\necho '{tmp_path}'\n")
    program.chmod(0o755)
    done = subprocess.run(
        [CHECK],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == message.format(headers=tmp_path)
    assert done.returncode == (1 if message else 0)
