"""How many connections may be open at a time."""

from __future__ import annotations

from pmpp.conninfo import Target
from pmpp.places import Places


def target(*names: str) -> Target:
    return Target("label", names, {}, must_use_password=False)


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
