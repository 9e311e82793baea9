"""Which module of the package may import which: every package keeps to the layers below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from installation import SOURCE

# What the modules of a package may import: other packages of pmpp, and packages of others that
# not every layer may use. A module that lies in no package has its own name here.
LAYERS = {
    "errors": set(),
    "core": {"errors"},
    "remote": {"errors", "core", "psycopg"},
    "scheduler": {"errors", "core", "remote", "psycopg"},
    "plpython": {"errors", "core", "remote", "scheduler", "psycopg", "plpy"},
    "client": {"errors"},
    # The package itself, which imports the class for programs outside the server.
    "pmpp": {"client"},
}
# Names that stand for the server process: PL/Python's module, and the C functions of the process.
SERVER_PROCESS = {"plpy", "pythonapi"}


def name_of(path: Path) -> str:
    """Return the name of a module as in an import, such as "pmpp.core.queue"."""
    parts = ("pmpp", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.glob("**/*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def layer(module: str) -> str:
    """Return the package of pmpp that a module is in, or the package of somebody else."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] or top if top == "pmpp" else top


def imports(module: str, *, is_running: bool = False) -> Iterator[str]:
    """Yield the modules that a module imports, also within functions.

    Args:
        module: its name.
        is_running: True to leave out what only type checkers import.
    """
    is_package = MODULES[module].stem == "__init__"
    for_types = {
        node
        for block in ast.walk(TREES[module])
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(TREES[module]):
        if is_running and node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".") + ([""] if is_package else [])
            start = parents[: -node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


@pytest.mark.parametrize("module", MODULES)
def test_imports(module: str) -> None:
    """A module imports only what its layer may use."""
    ours = layer(module)
    guarded = LAYERS.keys() | set().union(*LAYERS.values())
    used = {layer(name) for name in imports(module)} & guarded
    assert used - {ours} <= LAYERS[ours]


def test_no_circle() -> None:
    """No module imports itself by way of others."""
    graph = {name: MODULES.keys() & {*imports(name, is_running=True)} for name in MODULES}
    assert sum(map(len, graph.values())) > len(graph)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_server_process(module: str) -> None:
    """Only the modules of plpython mention PL/Python or the C functions of the process."""
    names = {
        getattr(node, field)
        for node in ast.walk(TREES[module])
        for field in ("id", "attr", "arg", "name")
        if isinstance(getattr(node, field, None), str)
    }
    if layer(module) != "plpython":
        assert names & SERVER_PROCESS == set()


def test_every_layer_is_known() -> None:
    """The layers above are those of the tree, and plpython uses what it alone may use."""
    assert {layer(name) for name in MODULES} == LAYERS.keys()
    source = "".join(path.read_text() for path in (SOURCE / "plpython").glob("*.py"))
    assert all(name in source for name in SERVER_PROCESS)
