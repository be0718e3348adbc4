"""The live page in a real Chromium: seen, filtered, by keyboard, and out of strangers' reach."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Ingest
from doow_serverless.local._protocol import Answer, Batch
from doow_serverless.local._store import Store
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.local.posting import event
from tests.network import KEY
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Iterator

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda" / "api"

pytestmark = [
    pytest.mark.extensive,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Root has no sandbox to be had for it.
        arguments = ["--no-sandbox"] if hasattr(os, "getuid") and os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, ingest: Ingest) -> Iterator[Any]:
    """The page, of which no line of its console, and no error, goes unnoticed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(ingest.url)
    yield page
    context.close()
    assert complaints == []


def send(ingest: Ingest, *arguments: str, stdin: str | None = None) -> None:
    env = {**os.environ, "DOOW_TRACK_API_KEY": KEY, "DOOW_TRACK_ENDPOINT": ingest.url}
    subprocess.run(
        [sys.executable, "-m", "doow_serverless", "send", *arguments],
        env=env, input=stdin, text=True, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def test_a_developer_watches_their_function_survive_an_outage(page: Any, ingest: Ingest) -> None:
    """Events of the example appear, are filtered; a fault is switched on, and the retry is seen."""
    expect = sync_api.expect
    env = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "DOOW_TRACK_BUDGET": "300",
        "POWERTOOLS_SERVICE_NAME": "summaries",
    }
    call = json.loads((EXAMPLE / "events" / "summary.json").read_text())
    expect(page.locator("#none")).to_be_visible()
    with LambdaRuntime("app.handler", EXAMPLE, env=env, timeout_s=10) as runtime:
        runtime.invoke(call)
        expect(page.locator(".event")).to_have_count(2)
        expect(page.locator("#totals tr")).to_have_count(2)

        page.get_by_label("Metric").select_option("tokens")
        expect(page.locator(".event")).to_have_count(1)
        expect(page.locator(".event .license")).to_have_text("lic_acme")
        page.get_by_label("Metric").select_option("")

        page.get_by_role("button", name="Failing (500)").click()
        expect(page.get_by_role("button", name="Failing (500)")).to_have_attribute(
            "aria-pressed", "true"
        )
        runtime.invoke(call)
        expect(page.locator(".event")).to_have_count(2)
        page.get_by_role("button", name="Nothing").click()
        arrived, ends_at = 4, time.monotonic() + 30
        while page.locator(".event").count() < arrived and time.monotonic() < ends_at:
            runtime.invoke(call)  # What was kept leaves beside what this one records.
            arrived += 2
            time.sleep(0.5)
        expect(page.locator(".event")).to_have_count(arrived)


def test_all_is_text(page: Any, ingest: Ingest) -> None:
    """Whatever was received: no markup of it, no script, no style."""
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    line = {"metric": hostile, "license_id": hostile, "attribution": {"team": hostile}}
    send(ingest, stdin=json.dumps(line))
    sync_api.expect(page.locator(".event strong")).to_have_text(hostile)
    assert page.locator("#events img, #events script, .aside img").count() == 0
    sync_api.expect(page.get_by_label("Metric").locator("option").nth(1)).to_have_text(hostile)


def test_by_keyboard_alone(page: Any, ingest: Ingest) -> None:
    """Search, open an event, pause, and go on."""
    expect = sync_api.expect
    lines = [{"metric": name, "license_id": "lic_1"} for name in ("tokens", "calls")]
    send(ingest, stdin="\n".join(map(json.dumps, lines)))
    expect(page.locator(".event")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("calls")
    expect(page.locator(".event")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".event")).to_have_count(2)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "event":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".details pre")).to_contain_text('"metric_name": "calls"')
    page.keyboard.press("Enter")
    expect(page.locator(".details")).to_have_count(0)
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    send(ingest, "--metric", "tokens", "--license-id", "lic_1")
    page.wait_for_timeout(700)
    expect(page.locator(".event")).to_have_count(2)
    page.keyboard.press("p")
    expect(page.locator(".event")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_every_screen(browser: Any, ingest: Ingest, scheme: str, width: int) -> None:
    """Nothing is wider than the window, and text stands out from what is behind it."""
    attribution = {"model": "gpt-4o", "a-rather-long-name-of-a-thing": "x" * 60}
    line = {"metric": "tokens", "license_id": "lic_acme", "attribution": attribution}
    send(ingest, stdin=json.dumps(line))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto(ingest.url)
    page.wait_for_selector(".event")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert abs(_brightness(colours[0]) - _brightness(colours[1])) > 150
    context.close()


def _brightness(colour: str) -> float:
    numbers = [float(each) for each in colour[4:-1].split(",")]
    return sum(numbers) / 3


def test_a_page_of_another_origin_is_kept_out(browser: Any, ingest: Ingest) -> None:
    """It can neither read what arrived, nor switch a fault on, nor show the page in a frame."""
    send(ingest, "--metric", "secret", "--license-id", "lic_1")
    attack = f"""<!doctype html><iframe src="{ingest.url}/"></iframe><script>
    window.read = []; window.done = 0;
    for (const path of ["/", "/_page/state", "/_local/events"])
      fetch("{ingest.url}" + path).then(r => r.text()).then(t => window.read.push(t))
        .catch(() => {{}}).finally(() => window.done++);
    for (const path of ["/_page/clear", "/_local/reset", "/_page/fault"])
      for (const mode of ["cors", "no-cors"])
        fetch("{ingest.url}" + path, {{method: "POST", mode, body: '{{"name": "500"}}'}})
          .catch(() => {{}}).finally(() => window.done++);
    </script>""".encode()

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(attack)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("window.done === 9")
        assert page.evaluate("window.read") == []
        framed = page.frames[1]
        assert framed.locator(".event").count() == 0
        context.close()
        server.shutdown()
    assert len(ingest.events()) == 1
    send(ingest, "--metric", "after", "--license-id", "lic_1")  # No fault was switched on.
    assert len(ingest.events()) == 2


def test_a_hundred_thousand_events(browser: Any, tmp_path: Path) -> None:
    """First paint, and a filter, each under a second here; the figures are printed."""
    store = Store(tmp_path / "ledger")
    view = store.view()
    for number in range(200):
        events = tuple(
            event(
                f"evt_{number}_{n}",
                license_id=f"lic_{n % 50}",
                attribution={"model": f"m{n % 7}"},
                measurements=[{"metric_name": f"metric_{n % 10}", "quantity": n + 1}],
            )
            for n in range(500)
        )
        batch = Batch(f"batch_{number}", events, "1", str(number))
        store.record(batch, {}, Answer(202))
        view.note(batch, {}, 1_000)
    store.close()
    figures: dict[str, float] = {}
    with Ingest(tmp_path / "ledger") as ingest:
        context = browser.new_context()
        page = context.new_page()
        began = time.monotonic()
        page.goto(ingest.url)
        page.wait_for_selector(".event")
        figures["first paint"] = time.monotonic() - began
        sync_api.expect(page.locator("#events-count")).to_have_text("100,000")
        for text, count in (("evt_77_499", 1), ("no such thing", 0), ("m3", 100)):
            began = time.monotonic()
            page.get_by_label("Search").fill(text)
            sync_api.expect(page.locator(".event")).to_have_count(count)
            figures[text] = time.monotonic() - began
        page.get_by_label("Search").fill("")
        began = time.monotonic()
        page.get_by_label("Metric").select_option("metric_9")
        sync_api.expect(page.locator(".event").first).to_contain_text("metric_9")
        figures["metric"] = time.monotonic() - began
        context.close()
    sys.stdout.write(f"{ {name: round(seconds, 2) for name, seconds in figures.items()} }\n")
    # Under a second each on a machine at rest; a busy one needs room, and no index needs minutes.
    within(max(figures.values()), 5.0)
