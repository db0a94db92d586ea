// Refreshes the page and sends its actions. The token stays in this tab's memory and is sent only to this server.
"use strict";

const EVERY = 3000;
const live = document.getElementById("live");
const outcome = document.getElementById("outcome");
const notice = document.getElementById("notice");
const freshness = document.getElementById("freshness");
const form = document.getElementById("token-form");
let token = "";
let asking = false;

const headers = (more = {}) => (token ? { Authorization: `Bearer ${token}`, ...more } : more);

function replace(text) {
  const selection = document.getSelection();
  // Someone may be copying a command: no refresh while text is selected.
  if (!selection.isCollapsed && live.contains(selection.anchorNode)) return false;
  const scrolled = [...live.querySelectorAll(".scroll")].map((each) => [each.id, each.scrollLeft]);
  const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.id));
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  live.innerHTML = text;
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  for (const [id, left] of scrolled) {
    const table = document.getElementById(id);
    if (table) table.scrollLeft = left;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  return true;
}

async function refresh() {
  // No content means that the request was rejected: wait for the token.
  if (asking || document.hidden || (form && !token && !live.firstChild)) return;
  asking = true;
  try {
    const answer = await fetch("console/live", { headers: headers(), cache: "no-store" });
    if (answer.ok) {
      const replaced = replace(await answer.text());
      notice.hidden = true;
      if (replaced) fresh();
    } else {
      say((await answer.json()).error);
      stale();
    }
  } catch {
    stale();
  } finally {
    asking = false;
  }
}

function fresh() {
  freshness.textContent = `as of ${new Date().toLocaleTimeString()}`;
  freshness.className = "";
  // Not announced by a screen reader every three seconds.
  freshness.removeAttribute("role");
}

function stale() {
  freshness.setAttribute("role", "alert");
  freshness.textContent = "the application does not respond: the data below is out of date";
  freshness.className = "stale";
}

function say(text, lines = []) {
  outcome.replaceChildren(document.createTextNode(text));
  for (const line of lines) {
    const row = document.createElement("p");
    row.textContent = line;
    outcome.append(row);
  }
}

async function send(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

const actions = {
  async "dry-run"({ id }) {
    const said = await send("findings/heal", { ids: [id], dry_run: true });
    say("A repair would do this; nothing was changed.", said.results.map((each) => `${each.id}: ${each.result}`));
  },
  async heal({ id }) {
    if (!window.confirm("Repair: copy the primary's document to the secondary?")) return;
    const said = await send("findings/heal", { ids: [id], dry_run: false });
    say("Repaired.", said.results.map((each) => `${each.id}: ${each.result}`));
  },
  async reveal({ id }) {
    const reason = window.prompt("Why? The reason is logged.");
    if (!reason) return;
    const said = await send("findings/reveal", { id, reason });
    const lines = said.values.map((each) => `${each.path}: ${each.primary} | ${each.secondary}`);
    say(`Primary | secondary; ${said.hidden} more are hidden (reveal_fields).`, lines);
  },
  async flip({ collection, to }) {
    const reason = window.prompt(`Make ${to} the primary of ${collection}. Why? The reason is logged.`);
    if (!reason) return;
    const said = await send("flip", { collection, to, reason });
    const held = `writes were paused for ${Math.round(said.held * 1000)} ms`;
    say(said.done ? `${said.to} is the primary of ${collection} now; ${held}. ${said.file}` : `Not done: ${said.said}`);
  },
};

live.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  if (!token) {
    say("Enter the admin token first.");
    document.getElementById("token")?.focus();
    return;
  }
  try {
    await actions[button.dataset.action](button.dataset);
  } catch (error) {
    say(error.message);
  }
  outcome.focus();
  refresh();
});

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  token = document.getElementById("token").value;
  document.getElementById("token").value = "";
  outcome.replaceChildren();
  refresh();
});

document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY);
refresh();
