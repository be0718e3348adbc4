"""Threads, time and a driver for the tests that need them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.delivery.driver import World
from tests.unit.delivery.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    yield turns
    turns.can_start = True
    turns.settle()


@pytest.fixture
def new_world(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    return partial(World, turns, monkeypatch)


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world()
