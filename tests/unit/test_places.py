"""How many connections may be open at a time."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from pmpp.conninfo import Target
from pmpp.errors import PmppError
from pmpp.places import Places


def target(*names: str) -> Target:
    return Target("label", names, {}, must_use_password=False)


@pytest.fixture(autouse=True)
def nothing_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test has taken places of this process."""
    monkeypatch.setattr("pmpp.places._open_in_process", 0)


def count(places: Places, item: int) -> int:
    """Take places for an item until there are none left; return how many there were."""
    taken = 0
    while taken < 100 and places.take(item):
        taken += 1
    return taken


def test_without_limits_there_is_always_a_place() -> None:
    """Nothing is limited that has no limit."""
    assert count(Places({}, None, {1: target("a")}), 1) == 100
    assert count(Places({"b": 1}, None, {1: target("a")}), 1) == 100


def test_items_share_the_places_of_a_host() -> None:
    """Two items that lead to the same host have its places together; giving back frees one."""
    places = Places({"a": 3}, None, {1: target("a"), 2: target("server", "a"), 3: target("b")})
    assert places.take(1)
    assert count(places, 2) == 2
    assert not places.take(1)
    places.give_back(2)
    assert places.take(1)
    assert count(places, 3) == 100


def test_the_smallest_limit_counts() -> None:
    """A server, its host, and the call as a whole are all limited."""
    limits = {"server": 5, "host": 2}
    assert count(Places(limits, None, {1: target("server", "host")}), 1) == 2
    assert count(Places(limits, None, {1: target("server", "other")}), 1) == 5
    assert count(Places(limits, 4, {1: target("server", "other")}), 1) == 4


def test_star_limits_each_of_those_without_a_limit() -> None:
    """Under a star every host without a limit of its own has that many places for itself."""
    places = Places(
        {"*": 2, "a": 3}, None, {1: target("a"), 2: target("b"), 3: target("c"), 4: target()}
    )
    assert [count(places, n) for n in (1, 2, 3, 4)] == [3, 2, 2, 2]


def test_star_is_not_evaded_by_further_names() -> None:
    """What leads to one host, under whatever further names, shares its places."""
    targets = {1: target("a"), 2: target("x", "a"), 3: target("y", "a"), 4: target("a", "a")}
    places = Places({"*": 2}, None, targets)
    assert [count(places, n) for n in (2, 3, 4, 1)] == [2, 0, 0, 0]


@pytest.fixture
def files() -> Iterator[int]:
    """This process may open so many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, before[1]))
    yield 60
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_all_calls_of_a_process(files: int) -> None:
    """Together they have a third of the files that it may open; one that has none is told."""
    first, second, third = (Places({}, None, {1: target("a")}) for _ in range(3))
    assert count(first, 1) == files // 3
    with pytest.raises(PmppError, match="too many connections open"):
        second.take(1)
    for _ in range(5):
        first.give_back(1)
    assert count(second, 1) == 5
    first.close()
    assert count(second, 1) == files // 3 - 5
    second.close()
    assert count(third, 1) == files // 3
    third.close()
