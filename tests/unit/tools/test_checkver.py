"""tools/checkver compares what other files say about hosts with the list in tools/hosts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from installation import TOP, git, run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this one, of which tools/checkver approves."""
    tree = tmp_path_factory.mktemp("tree")
    for name in git("ls-files").splitlines():
        if (TOP / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, tree / name)
    run("git", "init", "--quiet", cwd=tree)
    run("git", "add", "--all", cwd=tree)
    run(tree / "tools/checkver")
    return tree


# The mentions are put together here: this file must not contain them either.
@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("README.md", "| 17 |", "| 19 |", "README.md differs"),
        ("META.json", '"PostgreSQL": "15.', '"PostgreSQL": "14.', "META.json differs"),
        ("debian/pgversions", "15+", "14+", "debian/pgversions differs"),
        (".github/workflows/test.yml", "postgresql: 16,", "postgresql: 14,", "test.yml differs"),
        ("tools/hosts", "17  3.13", "17  3.12", "README.md differs"),
        ("doc/security.md", "# ", "# Debian " + "12 ", "doc/security.md says Debian " + "12"),
        ("README.md", "# pmpp", "# book" + "worm", "README.md says book" + "worm"),
        (
            "Makefile",
            "# ",
            "# postgresql-client-" + "17 ",
            "Makefile says postgresql-client-" + "17",
        ),
    ],
)
def test_checkver_compares_with_the_list(
    tree: Path, name: str, old: str, new: str, complaint: str
) -> None:
    """A wrong version in a file, and a release in a file that should name none, are found."""
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new, 1))
    done = subprocess.run([tree / "tools/checkver"], check=False, stderr=subprocess.PIPE, text=True)
    (tree / name).write_text(text)
    assert done.returncode == 1
    assert complaint in done.stderr
