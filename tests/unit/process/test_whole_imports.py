"""Packages of others are imported as a whole: no other thread is handed half of one."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from doow_serverless._process import whole_imports
from doow_serverless._process.whole_imports import whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_numbers = count()
PARTS = {
    "__init__": "import time\ntime.sleep(0.05)\nfrom .first import one\nfrom .second import two\n",
    "first": "import time\ntime.sleep(0.02)\nfrom . import second\none = second.two\n",
    "second": "import time\ntime.sleep(0.02)\ntwo = 2\n",
    "deep/__init__": "",
    "deep/third": "three = 3\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that takes its time to import, and imports its own parts."""
    name = f"slow_package_{next(_numbers)}"
    for part, code in PARTS.items():
        path = tmp_path / name / f"{part}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def beside(work: Callable[[], object], name: str, *, begins_s: float) -> list[str]:
    """Import ``name`` on another thread, which begins so many seconds after ``work``; problems."""
    problems: list[str] = []

    def attempt(job: Callable[[], object], after_s: float) -> None:
        time.sleep(max(0.0, after_s))
        try:
            job()
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")

    def import_it() -> None:
        importlib.import_module(name)

    other = threading.Thread(target=attempt, args=(import_it, begins_s))
    other.start()
    attempt(work, -begins_s)
    other.join()
    return problems


@pytest.mark.parametrize("begins_s", [-0.02, 0.02])
@pytest.mark.parametrize("part", ["", ".first", ".second", ".deep.third"])
def test_a_thread_that_imports_a_part_at_the_same_time(
    package: str, part: str, begins_s: float
) -> None:
    """Both imports succeed, whichever began first, and each module was run once."""

    def work() -> None:
        with whole(package):
            importlib.import_module(package)

    assert beside(work, package + part, begins_s=begins_s) == []
    assert sys.modules[package].two == 2


def test_without_it_one_of_the_two_fails(package: str) -> None:
    """The tests above can see the fault."""
    name = f"{package}.first"
    problems = beside(lambda: importlib.import_module(package), name, begins_s=0.02)
    assert problems != []


def test_the_locks_are_held_by_parts_first(package: str) -> None:
    """As everybody takes them who imports a part, so that nobody waits for both."""
    assert sorted(whole_imports._modules_of(package)[:-1]) == [
        f"{package}.deep", f"{package}.deep.third",
        f"{package}.first", f"{package}.second",
    ]  # fmt: skip
    assert whole_imports._modules_of(package)[-1] == package


@pytest.mark.parametrize("name", ["there_is_no_such_package", "math", "sys", "this"])
def test_what_is_no_package_is_imported_as_ever(name: str) -> None:
    """A missing one, one that is built in, a module without parts."""
    waiting = threading.Event()
    other = threading.Thread(target=waiting.wait)
    other.start()
    try:
        with whole(name):
            pass
    finally:
        waiting.set()
        other.join()


def test_a_python_with_other_locks(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is imported all the same."""
    monkeypatch.setattr(whole_imports, "_bootstrap", object())
    waiting = threading.Event()
    other = threading.Thread(target=waiting.wait)
    other.start()
    try:
        with whole(package):
            assert importlib.import_module(package).two == 2
    finally:
        waiting.set()
        other.join()


def test_another_import_is_not_waited_for_for_ever(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit nothing is held, and the import goes its own way."""
    monkeypatch.setattr(whole_imports, "LIMIT_S", 0.0)
    begun, waiting = threading.Event(), threading.Event()

    def hold() -> None:
        with whole_imports._bootstrap._ModuleLockManager(f"{package}.second"):
            begun.set()
            waiting.wait()

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    try:
        with whole(package):
            assert not whole_imports._is_locked_by_another(f"{package}.first")
            assert whole_imports._is_locked_by_another(f"{package}.second")
    finally:
        waiting.set()
        other.join()
