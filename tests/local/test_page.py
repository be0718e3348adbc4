"""The live page over HTTP: what it shows, what it changes, and whom it refuses."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from doow_serverless.local import Fault, Ingest
from tests.local.posting import batch, event
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def post(ingest: Ingest, content: object) -> int:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return requests.post(
        f"{ingest.url}/telemetry/events", json=content, headers=headers, timeout=10
    ).status_code


def state(ingest: Ingest, **asked: Any) -> Any:
    return requests.get(f"{ingest.url}/_page/state", params=asked, timeout=10).json()


def measured(name: str, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return event(
        more.pop("event_id", f"evt_{name}"),
        measurements=[{"metric_name": name, "quantity": quantity}],
        **more,
    )


# ── what it shows ───────────────────────────────────────────────────────────────────────────────


def test_events_newest_first_with_all_that_is_said_of_them(ingest: Ingest) -> None:
    """Metric, quantity, unit, license, attribution, source, batch, and when it came."""
    began = time.time()
    post(ingest, batch(measured("a"), measured("b", 2.50, unit="u", attribution={"m": 1})))
    newest, oldest = state(ingest)["events"]
    assert [each["measurements"][0]["metric_name"] for each in (newest, oldest)] == ["b", "a"]
    assert newest["measurements"] == [{"metric_name": "b", "quantity": "2.5"}]
    assert (newest["unit"], newest["attribution"], newest["source_system"]) == (
        "u",
        {"m": 1},
        "sdk",
    )
    assert newest["batch_id"] == oldest["batch_id"]
    assert began - 1 <= newest["received_at"] <= time.time() + 1


def test_totals_are_exact(ingest: Ingest) -> None:
    """By metric and license: 0.1 and 0.2 are 0.3; a batch that comes again adds nothing."""
    first = batch(measured("t", 0.1), measured("t", 0.2, event_id="e2"), batch_id="one")
    for content in (first, first, batch(measured("t", 7, license_id="lic_2"), batch_id="two")):
        post(ingest, content)
    found = {(each["metric_name"], each["license_id"]): each for each in state(ingest)["totals"]}
    assert Decimal(found["t", "lic_1"]["quantity"]) == Decimal("0.3")
    assert (found["t", "lic_1"]["events"], found["t", "lic_2"]["quantity"]) == (2, "7")


def test_batches_and_rejections(ingest: Ingest) -> None:
    """Status, size, how long it took, how often it came again; each reason."""
    content = batch(measured("a"), event("evt_bad", license_id=""), batch_id="one")
    ingest.fault(Fault(delay_s=0.1))
    assert [post(ingest, content) for _ in range(3)] == [207] * 3
    [found] = state(ingest)["batches"]
    assert (found["batch_id"], found["status"], found["events"], found["duplicates"]) == (
        "one", 207, 2, 2,
    )  # fmt: skip
    assert found["took_s"] >= 0.1
    assert found["bytes"] == len(json.dumps(content))
    [rejected] = state(ingest)["rejections"]
    assert rejected["event_id"] == "evt_bad"
    assert "license_id" in rejected["reason"]


def test_minutes(ingest: Ingest) -> None:
    """What the chart shows: this minute has what has just come."""
    post(ingest, batch(measured("a", 3), measured("a", 4, event_id="e2")))
    assert sum(each["quantity"] for each in state(ingest)["minutes"]) == 7


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"metric": "b"}, ["b"]),
        ({"license_id": "lic_2"}, ["c"]),
        ({"text": "GPT"}, ["b"]),
        ({"text": "c"}, ["c", "b", "a"]),  # of "batch"
        ({"text": "evt_c"}, ["c"]),
        ({"text": "100%"}, ["a"]),
        ({"text": "_"}, ["c", "b", "a"]),
        ({"text": "%%"}, []),
        ({"metric": "b", "license_id": "lic_2"}, []),
        ({"text": "' OR 1=1 --"}, []),
    ],
)
def test_filters(asked: dict[str, str], found: list[str], ingest: Ingest) -> None:
    """By metric, license, and any text; nothing of it is SQL."""
    post(
        ingest,
        batch(
            measured("a", attribution={"share": "100%"}),
            measured("b", attribution={"model": "gpt-4o"}),
            measured("c", license_id="lic_2"),
            batch_id="batch_c",
        ),
    )
    events = state(ingest, **asked)["events"]
    assert [each["measurements"][0]["metric_name"] for each in events] == found


def test_pages(ingest: Ingest) -> None:
    """What is new since then, and what is older; never more than two hundred at once."""
    for part in range(3):
        post(ingest, batch(*(measured("a", event_id=f"{part}_{n}") for n in range(100)),
                           batch_id=str(part)))  # fmt: skip
    first = state(ingest)["events"]
    assert (len(first), first[0]["event_id"]) == (100, "2_99")
    older = state(ingest, before=first[-1]["number"])["events"]
    assert (len(older), older[0]["event_id"]) == (100, "1_99")
    assert len(state(ingest, most=100_000)["events"]) == 200
    assert [each["event_id"] for each in state(ingest, after=first[1]["number"])["events"]] == [
        "2_99"
    ]


def test_a_ledger_of_an_earlier_version(tmp_path: Path) -> None:
    """Its events are summed up when it is opened."""
    import sqlite3

    path = tmp_path / "ledger"
    with Ingest(path) as ingest:
        post(ingest, batch(measured("a", 3)))
    with sqlite3.connect(path) as database:
        for table in ("arrivals", "rejections", "usage_totals", "usage_minutes"):
            database.execute(f"DROP TABLE {table}")
    database.close()
    with Ingest(path) as ingest:
        assert state(ingest)["totals"] == [
            {"metric_name": "a", "license_id": "lic_1", "quantity": "3", "events": 1}
        ]
        assert state(ingest)["events"][0]["received_at"] is None


def test_the_stream_tells_of_changes(ingest: Ingest) -> None:
    """One line for each lot of them; it ends with the ingest."""
    told: list[str] = []
    heard = threading.Event()

    def listen() -> None:
        with requests.get(f"{ingest.url}/_page/stream", stream=True, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                told.append(line.decode())
                heard.set()
                if sum(each.startswith("data:") for each in told) == 2:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    assert heard.wait(10)
    post(ingest, batch(measured("a")))
    thread.join(10)
    assert len({each for each in told if each.startswith("data:")}) == 2


# ── what it changes ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def change(ingest: Ingest) -> Callable[..., requests.Response]:
    """As the page does."""

    def change(path: str, content: object = None, **headers: str) -> requests.Response:
        return requests.post(
            f"{ingest.url}/_page/{path}",
            json=content,
            headers={"Origin": ingest.url, **headers},
            timeout=10,
        )

    return change


def test_a_fault_is_switched_on_and_off(
    ingest: Ingest, change: Callable[..., requests.Response]
) -> None:
    """One at a time; the state says which."""
    assert change("fault", {"name": "500"}).status_code == 200
    assert (state(ingest)["fault"], post(ingest, batch(measured("a")))) == ("500", 500)
    change("fault", {"name": "429"})
    assert post(ingest, batch(measured("a"))) == 429
    change("fault", {"name": ""})
    assert (state(ingest)["fault"], post(ingest, batch(measured("a")))) == ("", 202)
    assert change("fault", {"name": "flood"}).status_code == 400


def test_clear(ingest: Ingest, change: Callable[..., requests.Response]) -> None:
    """Nothing is left."""
    post(ingest, batch(measured("a")))
    assert change("clear").status_code == 200
    found = state(ingest)
    assert found["count"] == {"events": 0, "batches": 0, "rejections": 0}
    assert (found["totals"], found["minutes"], found["batches"]) == ([], [], [])
    assert ingest.events() == []


# ── whom it refuses ─────────────────────────────────────────────────────────────────────────────

PATHS = ("/", "/_page/state", "/_page/page.js", "/_page/stream", "/_local/events", "/_local/posts")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8787"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_stranger_reads_nothing(path: str, headers: dict[str, str], ingest: Ingest) -> None:
    """Neither under a name that only resolves to this machine, nor from another page."""
    post(ingest, batch(measured("secret")))
    answer = requests.get(ingest.url + path, headers=headers, timeout=10)
    assert answer.status_code == 403
    assert b"secret" not in answer.content
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/_page/fault", "/_page/clear", "/_local/reset", "/_local/faults"]
)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}],
    ids=str,
)
def test_a_stranger_changes_nothing(path: str, headers: dict[str, str], ingest: Ingest) -> None:
    """Not even by what a form may send without being asked."""
    post(ingest, batch(measured("a")))
    for content in ({"name": "500"}, None):
        answer = requests.post(ingest.url + path, json=content, headers=headers, timeout=10)
        assert answer.status_code == 403
    assert post(ingest, batch(measured("b"), batch_id="other")) == 202
    assert len(ingest.events()) == 2


def test_only_the_page_changes_what_is_the_pages(ingest: Ingest) -> None:
    """A browser always says who asks; what does not say is none."""
    assert requests.post(f"{ingest.url}/_page/clear", timeout=10).status_code == 403
    assert requests.get(f"{ingest.url}/_page/clear", timeout=10).status_code in (404, 405)


def test_what_a_browser_is_told(ingest: Ingest) -> None:
    """To load nothing from elsewhere, to run nothing inline, to show it in no frame."""
    answer = requests.get(ingest.url, timeout=10)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in answer.text
    assert "http://" not in answer.text
    assert requests.get(f"{ingest.url}/_page/../_app.py", timeout=10).status_code == 404
