"""The journal's files: what stands in them, what is taken out of them, and what is refused."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from doow_serverless._keeping.journal import Journal
from doow_serverless._recording.labels import fit_metadata
from doow_serverless._sealing import seal, split
from tests.unit.keeping.journals import DEFAULTS, QUOTES, TOKENS, crash, events, files, sent, told

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless._recording.event import Event
    from doow_serverless._sealing import Batch


# ── what is recovered ──────────────────────────────────────────────────────────────────────────


def test_events_are_recovered_to_the_letter(folder: Path) -> None:
    """A recovered event is the JSON that the wire would have sent, whatever stands in it."""
    metadata = fit_metadata({"deep": [{"ü\n": None}]}, 1_000, [])
    recorded: list[Event] = [
        ("plain", 1_800_000_000.1239, TOKENS, 1, None),
        ("float", 1_800_000_000.0, TOKENS, 0.1, metadata),
        ('own "id", \n\\ß', "2026-11-22T11:33:00.123456789+05:30", QUOTES, "-1.50", None),
        (
            "many",
            1.5,
            DEFAULTS.template_of_many((None, None, None, "USAGE", None, None)),
            '{"a":1}',
            "null",
        ),
    ]
    dead = Journal(folder)
    for event in recorded:
        dead.record_many([event])
    crash(dead)
    recovered = Journal(folder).recover()
    texts = [batch.json().partition('"events":')[2] for batch in recovered]
    assert texts == [batch.json().partition('"events":')[2] for batch in seal(recorded)]


def test_a_sealed_batch_is_recovered_byte_for_byte(folder: Path) -> None:
    """Id, bytes, compression and version are those that may have been sent."""
    dead = Journal(folder)
    recorded = events(700)
    dead.record_many(recorded)
    batches = [*seal(recorded[:600]), *seal(recorded[600:], compress=False)]
    for batch in batches:
        batch.sdk_version = "0.0.7"
        dead.note_sealed(batch)
    crash(dead)
    assert told(Journal(folder).recover()) == told(batches)


def test_only_what_is_outstanding_is_recovered(folder: Path) -> None:
    """Settled batches and forgotten events stay away; events of sealed batches come once."""
    dead = Journal(folder)
    dead.record_many(events(9))
    first, second = (*seal(events(3)), *seal(events(3, 3)))
    dead.note_sealed(first)
    dead.note_sealed(second)
    dead.note_settled(first.id)
    dead.forget(["evt-6", "evt-8"])
    crash(dead)
    recovered = Journal(folder).recover()
    assert told(recovered[:1]) == told([second])
    assert [batch.event_ids for batch in recovered[1:]] == [("evt-7",)]


def test_a_batch_is_noted_whose_events_are_not(folder: Path) -> None:
    """Events that no one recorded here are safe once they are sealed."""
    dead = Journal(folder)
    (batch,) = seal(events(2))
    dead.note_sealed(batch)
    crash(dead)
    assert told(Journal(folder).recover()) == told([batch])


def test_halves_come_in_the_stead_of_their_batch(folder: Path) -> None:
    """After a split the halves are outstanding, each for itself, and the whole is not."""
    dead = Journal(folder)
    dead.record_many(events(4))
    (batch,) = seal(events(4))
    halves = split(batch)
    dead.note_sealed(batch)
    dead.note_split(batch, halves)
    dead.note_settled(halves[0].id)
    crash(dead)
    assert told(Journal(folder).recover()) == told(halves[1:])


def test_events_with_one_id_are_counted(folder: Path) -> None:
    """Two events that the user gave one id are two: sealing one leaves the other."""
    dead = Journal(folder)
    twins: list[Event] = [("same", 1.0, TOKENS, 1, None), ("same", 2.0, TOKENS, 2, None)]
    dead.record_many(twins)
    (first,) = seal(twins[:1])
    dead.note_sealed(first)
    dead.note_settled(first.id)
    crash(dead)
    recovered = sent(Journal(folder).recover())
    assert [one["measurements"][0]["quantity"] for one in recovered] == [2]


def test_a_part_takes_the_place_of_what_it_became_a_part_of(folder: Path) -> None:
    """Folding: recovered is the sum so far; of what is sealed, or was never noted, nothing."""
    dead = Journal(folder)
    dead.record_many(events(3))
    for quantity in (5, 7):
        dead.replace(("evt-0", 1_800_000_001.0, TOKENS, quantity, None))
    (sealed,) = seal(events(2)[1:])
    dead.note_sealed(sealed)
    dead.note_settled(sealed.id)
    dead.replace(events(2)[1])
    dead.replace(events(9)[8])
    crash(dead)
    recovered = sent(Journal(folder).recover())
    assert [(one["event_id"], one["measurements"][0]["quantity"]) for one in recovered] == [
        ("evt-0", 7),
        ("evt-2", 3),
    ]


def test_recovered_events_keep_to_the_bounds(folder: Path) -> None:
    """Events are sealed as the tracker is configured to."""
    dead = Journal(folder)
    dead.record_many(events(60))
    crash(dead)
    recovered = Journal(folder).recover(max_bytes=4_096, compress=False)
    assert len(recovered) > 2
    assert all(len(batch.body) <= 4_096 and not batch.gzipped for batch in recovered)
    assert [one["event_id"] for one in sent(recovered)] == [one[0] for one in events(60)]


def test_recovered_events_fit_into_lines_of_the_log(folder: Path) -> None:
    """With delivery by log a batch packs into one line, and none is lost."""
    journal = Journal(folder)
    noises = (f'{{"noise":"{random.randbytes(200).hex()}"}}' for _ in range(40))
    journal.record_many((*one[:4], noise) for one, noise in zip(events(40), noises, strict=True))
    crash(journal)
    recovered = Journal(folder).recover(max_bytes=20_480, max_packed=2_650)
    assert max(len(batch.body) for batch in recovered) <= 2_650
    assert [one["event_id"] for one in sent(recovered)] == [f"evt-{n}" for n in range(40)]


def test_recovered_ids_derive_from_what_is_recovered(folder: Path, tmp_path: Path) -> None:
    """Whoever recovers the same file gives the same ids; the same events elsewhere, others."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    (path,) = files(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / path.name).write_bytes(path.read_bytes())
    (copy / path.name.replace(".", "0.")).write_bytes(path.read_bytes())
    here = Journal(folder).recover()
    there = Journal(copy).recover()
    assert len(there) == 2
    assert [batch.id for batch in here] == [b.id for b in there if b.id == here[0].id]


# ── once ───────────────────────────────────────────────────────────────────────────────────────


def test_a_living_process_keeps_its_events(folder: Path) -> None:
    """What is locked is not taken, by another process or by another journal of this one."""
    living = Journal(folder)
    living.record_many(events(3))
    assert Journal(folder).recover() == []
    assert living.recover() == []


def test_what_was_recovered_is_not_recovered_again(folder: Path) -> None:
    """While the process lives that took it over, no other does, and it does not twice."""
    dead = Journal(folder)
    dead.record_many(events(3))
    crash(dead)
    living = Journal(folder)
    assert len(living.recover()) == 1
    assert living.recover() == []
    assert Journal(folder).recover() == []


def test_a_crash_of_who_recovered_loses_nothing(folder: Path) -> None:
    """What the second process settled stays settled, the rest comes with the same bytes."""
    dead = Journal(folder)
    dead.record_many(events(1_200))
    crash(dead)
    second = Journal(folder)
    batches = second.recover()
    assert [len(batch) for batch in batches] == [500, 500, 200]
    second.note_settled(batches[1].id)
    crash(second)
    assert told(Journal(folder).recover()) == told([batches[0], batches[2]])


def test_recovered_files_go_once_they_are_settled(folder: Path) -> None:
    """The last answer removes the file of the dead process."""
    dead = Journal(folder)
    dead.record_many(events(600))
    crash(dead)
    living = Journal(folder)
    batches = living.recover()
    assert len(files(folder)) == 1
    for batch in batches:
        living.note_settled(batch.id)
    assert files(folder) == []
    assert living._taken == []


def test_audiences_are_apart(folder: Path) -> None:
    """What was recorded for one key is never sent with another."""
    dead = Journal(folder, audience="one")
    dead.record_many(events(3))
    crash(dead)
    assert Journal(folder, audience="two").recover() == []
    assert len(Journal(folder, audience="one").recover()) == 1


def test_two_journals_recover_at_once(folder: Path) -> None:
    """However many threads and journals recover, each event comes to one."""
    for number in range(20):
        dead = Journal(folder)
        dead.record_many(events(5, 5 * number))
        crash(dead)
    found: list[Batch] = []
    journals = [Journal(folder) for _ in range(8)]
    threads = [threading.Thread(target=lambda j=j: found.extend(j.recover())) for j in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["event_id"] for one in sent(found)) == sorted(e[0] for e in events(100))
