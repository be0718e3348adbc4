"""Ids: random ones, and those that a retry of the same work finds again."""

from __future__ import annotations

import itertools
import uuid

from hypothesis import given
from hypothesis import strategies as st

from doow_serverless._recording.ids import DerivedIds, derived_id, new_id


def test_a_new_id_is_a_random_uuid() -> None:
    """Version 4 of RFC 9562 in its canonical form, and never the same twice."""
    ids = [new_id() for _ in range(10_000)]
    parsed = [uuid.UUID(one) for one in ids]
    assert {(one.version, one.variant) for one in parsed} == {(4, uuid.RFC_4122)}
    assert [str(one) for one in parsed] == ids
    assert len(set(ids)) == len(ids)


def test_a_new_id_varies_in_every_free_digit() -> None:
    """All hex digits occur at all places but the version's, and four at the variant's."""
    seen = [set(digits) for digits in zip(*(new_id() for _ in range(5_000)), strict=True)]
    everything = set("0123456789abcdef")
    fixed = {8: {"-"}, 13: {"-"}, 14: {"4"}, 18: {"-"}, 19: set("89ab"), 23: {"-"}}
    assert seen == [fixed.get(place, everything) for place in range(36)]


def test_a_derived_id_stays_the_same() -> None:
    """These very ids are in Doow's ledger: another derivation would count retries again."""
    assert derived_id("request:1", "said") == "b6d29b1f-7b67-57d9-95ae-09e3b1360482"
    assert uuid.UUID(derived_id("a")).version == 5


@given(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=4))
def test_a_derived_id_tells_its_parts_apart(parts: list[str]) -> None:
    """What is joined elsewhere, or stands in another order, has another id."""
    assert derived_id(*parts) == derived_id(*parts)
    assert derived_id(*parts) != derived_id(*parts, "")
    if len(parts) > 1:
        assert derived_id("".join(parts[:2]), *parts[2:]) != derived_id(*parts)
    if parts != parts[::-1]:
        assert derived_id(*parts) != derived_id(*parts[::-1])


def test_the_same_work_has_the_same_ids() -> None:
    """Equal events are told apart by their number, and found again."""
    said = ["a", "b", "a", "a", "c"]
    first, again = DerivedIds("function", "work"), DerivedIds("function", "work")
    ids = [first.next(one) for one in said]
    assert [again.next(one) for one in said] == ids
    assert len(set(ids)) == len(ids)


@given(st.permutations(["a", "a", "a", "b", "b", "c"]))
def test_the_order_of_different_events_does_not_matter(order: list[str]) -> None:
    """Threads may record in another order the next time."""
    first, again = DerivedIds("function", "work"), DerivedIds("function", "work")
    assert {again.next(one) for one in order} == {first.next(one) for one in "aaabbc"}


def test_one_event_more_changes_no_other_id() -> None:
    """A retry that says more, or less, names what it has in common alike."""
    first, more = DerivedIds("function", "work"), DerivedIds("function", "work")
    ids = [first.next(one) for one in ("a", "b", "a")]
    ids_of_more = [more.next(one) for one in ("a", "new", "b", "a", "b")]
    assert set(ids_of_more) - set(ids) == {ids_of_more[1], ids_of_more[4]}
    assert set(ids) < set(ids_of_more)


def test_other_work_has_other_ids() -> None:
    """Neither two invocations nor two functions share an id, whatever they say."""
    identities = [("f", "1"), ("f", "2"), ("g", "1"), ("", "f1"), ("f1", ""), ("f", "request:1")]
    works = [DerivedIds(*identity) for identity in identities]
    ids = [work.next(said) for work, said in itertools.product(works, ("a", "a", "b", ""))]
    assert len(set(ids)) == len(ids)


def test_what_is_kept_is_small() -> None:
    """Neither a long identity nor long events stay in memory, or are digested each time."""
    work = DerivedIds("function", "records:" + ",".join(["shardId-0:" + "9" * 56] * 10_000))
    for number in range(10):
        work.next(f"{number}" + "x" * 100_000)
    assert len(work._identity) == 36
    assert {len(said) for said in work._seen} == {36}
