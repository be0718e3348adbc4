// The live page: asks for the state whenever the stream says that it has changed, and shows it.
// All that was received is set as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const KEY = "dk_" + "0".repeat(64);
const FAULTS = [
  ["", "Nothing"], ["delay", "Slow: 1 s"], ["429", "Rate limited (429)"], ["limit", "The organization's limit"],
  ["500", "Failing (500)"], ["503", "In flight (503)"], ["silent", "Never answering"],
  ["lost", "One answer lost"], ["reset", "Connection reset"], ["401", "Key refused (401)"],
];
const shown = { newest: 0, oldest: null, fault: "", paused: false, known: new Map() };

function made(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function age(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.max(0, Date.now() / 1000 - seconds);
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleString();
}

function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}

// Digits in groups of three, exactly as they came.
function grouped(text) {
  const [, sign, whole, rest] = /^(-?)(\d+)(.*)$/.exec(text) || [null, "", text, ""];
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") + rest;
}

function query(more) {
  const asked = new URLSearchParams(more);
  for (const [name, id] of [["text", "text"], ["metric", "metric"], ["license_id", "license"]]) {
    if (at(id).value) asked.set(name, at(id).value);
  }
  return `/_page/state?${asked}`;
}

async function ask(more) {
  const response = await fetch(query(more));
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.json();
}

async function change(path, content) {
  await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
  await refresh();
}

async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

// ── events ──────────────────────────────────────────────────────────────────────────────────────

function row(event, isNew) {
  const item = made("li");
  const head = made("button", undefined, isNew ? "event new" : "event");
  head.type = "button";
  head.setAttribute("aria-expanded", "false");
  const name = made("span");
  event.measurements.forEach((each, index) => {
    if (index) name.append(", ");
    name.append(made("strong", each.metric_name), " ", made("span", grouped(each.quantity), "quantity"));
  });
  if (event.unit) name.append(` ${event.unit}`);
  if (event.kind !== "USAGE") name.append(" ", made("em", event.kind.toLowerCase()));
  const when = made("span", age(event.received_at), "age");
  when.dataset.at = event.received_at ?? "";
  const labels = made("span", undefined, "labels");
  labels.append(made("span", event.license_id, "label license"));
  for (const [key, value] of Object.entries(event.attribution)) {
    labels.append(made("span", `${key}=${value}`, "label"));
  }
  labels.append(made("span", `source ${event.source_system}`, "label"), made("span", `batch ${event.batch_id}`, "label"));
  head.append(name, when, labels);
  head.addEventListener("click", () => open(item, head, event));
  item.append(head);
  return item;
}

function open(item, head, event) {
  const known = item.querySelector(".details");
  head.setAttribute("aria-expanded", String(!known));
  if (known) { known.remove(); return; }
  const { number, received_at, ...said } = event;
  const text = JSON.stringify(said, null, 2);
  const details = made("div", undefined, "details");
  const button = made("button", "Copy as JSON");
  button.type = "button";
  button.addEventListener("click", () => copy(text, button));
  details.append(made("pre", text), button);
  item.append(details);
}

function showEvents(events, { isFresh }) {
  const rows = at("rows");
  const isFirst = !rows.childElementCount;
  const fragment = document.createDocumentFragment();
  for (const event of events) fragment.append(row(event, isFresh && !isFirst));
  if (isFresh) rows.prepend(fragment); else rows.append(fragment);
  if (events.length) {
    if (isFresh) shown.newest = Math.max(shown.newest, events[0].number);
    const last = events[events.length - 1].number;
    shown.oldest = shown.oldest === null ? last : Math.min(shown.oldest, last);
  }
  // What was shown for long makes room; it is still there, under "Older events".
  while (isFresh && rows.childElementCount > 300) rows.lastElementChild.remove();
  at("none").hidden = rows.childElementCount > 0;
  at("none").textContent = at("text").value || at("metric").value || at("license").value
    ? "No event is like that."
    : "Nothing has arrived yet. Export the two variables above where your function runs.";
}

// ── the rest ────────────────────────────────────────────────────────────────────────────────────

function fill(id, rows) {
  at(id).replaceChildren(...rows.map((cells) => {
    const line = made("tr");
    line.append(...cells.map(([text, className]) => made("td", text, className)));
    return line;
  }));
}

function choices(id, values) {
  const select = at(id);
  const wanted = ["", ...[...new Set(values)].sort()];
  if (wanted.length === select.options.length && wanted.every((v, i) => v === select.options[i].value)) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map((value) => {
    const option = made("option", value || "all");
    option.value = value;
    return option;
  }));
  select.value = wanted.includes(chosen) ? chosen : "";
}

function chart(minutes) {
  const metric = at("metric").value;
  const now = Math.floor(Date.now() / 60000);
  const bars = new Array(30).fill(0);
  for (const each of minutes) {
    const place = 29 - (now - each.minute);
    if (place >= 0 && place < 30 && (!metric || each.metric_name === metric)) bars[place] += Number(each.quantity);
  }
  const most = Math.max(...bars, 0);
  at("chart").replaceChildren(...bars.map((value, index) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = most ? Math.max(value ? 1.5 : 0, 58 * value / most) : 0;
    for (const [name, number] of [["x", index * 10 + 1], ["y", 60 - height], ["width", 8], ["height", height]]) {
      bar.setAttribute(name, number);
    }
    return bar;
  }));
  at("chart-key").textContent = most
    ? `${metric || "All metrics"} by minute, of the last half hour; at most ${most.toLocaleString()}`
    : "";
}

function showState(state) {
  const { events, batches, rejections } = state.count;
  at("events-count").textContent = events.toLocaleString();
  at("status").textContent = `${shown.paused ? "paused · " : ""}${events.toLocaleString()} events in ${batches.toLocaleString()} batches` +
    (rejections ? `, ${rejections.toLocaleString()} rejected` : "");
  choices("metric", state.totals.map((each) => each.metric_name));
  choices("license", state.totals.map((each) => each.license_id));
  if (!state.takes_any_key) tellExports("<the key given with --key>");
  chart(state.minutes);
  fill("totals", state.totals.map((each) => [
    [each.metric_name], [each.license_id], [grouped(each.quantity), "number"], [each.events.toLocaleString(), "number"],
  ]));
  fill("batches", state.batches.map((each) => [
    [String(each.status), each.status === 202 ? "good" : each.status === 207 ? "warn" : "bad"],
    [each.batch_id, "id"], [String(each.events), "number"], [size(each.bytes), "number"],
    [each.took_s === null ? "" : `${Math.round(each.took_s * 1000)} ms`, "number"],
    [each.duplicates ? `×${each.duplicates}` : "", "number warn"],
  ]));
  fill("rejections", state.rejections.map((each) => [[each.event_id, "id"], [each.reason]]));
  if (!state.rejections.length) fill("rejections", [[["none", "note"], [""]]]);
  for (const button of at("faults").children) {
    button.setAttribute("aria-pressed", String(button.dataset.name === state.fault));
  }
}

function tellExports(key) {
  const endpoint = location.origin.replace("localhost", "127.0.0.1");
  at("exports").textContent = `export DOOW_TRACK_ENDPOINT=${endpoint}\nexport DOOW_TRACK_API_KEY=${key}`;
}

let running = null, again = false;

async function refresh() {
  if (running) { again = true; return running; }
  running = (async () => {
    do {
      again = false;
      try {
        const state = await ask(shown.newest ? { after: shown.newest } : {});
        const newest = shown.newest;
        if (state.count.events === 0) reset();
        // More than a page since then: what lies between is under "Older events".
        if (newest && state.events.length === 100) { reset(); showEvents(state.events, { isFresh: true }); }
        else showEvents(state.events, { isFresh: true });
        showState(state);
        at("more").hidden = at("rows").childElementCount < 100 && state.events.length < 100 && !shown.hasMore;
      } catch (problem) {
        at("status").textContent = `not connected (${problem.message})`;
      }
    } while (again);
    running = null;
  })();
  return running;
}

function reset() {
  at("rows").replaceChildren();
  shown.newest = 0;
  shown.oldest = null;
}

async function filter() {
  reset();
  await refresh();
}

function start() {
  tellExports(KEY);
  at("copy-exports").addEventListener("click", () => copy(at("exports").textContent, at("copy-exports")));
  for (const [name, label] of FAULTS) {
    const button = made("button", label);
    button.type = "button";
    button.dataset.name = name;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => change("/_page/fault", { name }));
    at("faults").append(button);
  }
  let timer = null;
  at("text").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 150); });
  at("metric").addEventListener("change", filter);
  at("license").addEventListener("change", filter);
  at("pause").addEventListener("click", () => {
    shown.paused = !shown.paused;
    at("pause").setAttribute("aria-pressed", String(shown.paused));
    if (!shown.paused) refresh();
    else at("status").textContent = `paused · ${at("status").textContent}`;
  });
  at("clear").addEventListener("click", async () => {
    if (confirm("Forget all events, batches and faults?")) { await change("/_page/clear", {}); await filter(); }
  });
  at("more").addEventListener("click", async () => {
    const state = await ask({ before: shown.oldest });
    showEvents(state.events, { isFresh: false });
    at("more").hidden = state.events.length < 100;
  });
  document.addEventListener("keydown", (key) => {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (key.key === "Escape" && document.activeElement === at("text")) { at("text").value = ""; filter(); }
    if (isTyping || key.ctrlKey || key.metaKey || key.altKey) return;
    if (key.key === "/") { key.preventDefault(); at("text").focus(); }
    if (key.key === "p") at("pause").click();
  });
  setInterval(() => {
    for (const node of document.querySelectorAll(".age")) if (node.dataset.at) node.textContent = age(Number(node.dataset.at));
  }, 5000);
  const stream = new EventSource("/_page/stream");
  stream.onmessage = () => { if (!shown.paused) refresh(); };
  stream.onerror = () => { at("status").textContent = "not connected: is the ingest running?"; };
  refresh();
}

start();
