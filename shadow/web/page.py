"""The console's page: the status and the findings, for people. Rendered on the server; no build step."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from shadow import manual
from shadow.fleet.health_gates import Gate, Readiness
from shadow.fleet.status import ProcessStatus
from shadow.markup import Child, Markup, join, tag
from shadow.web.plot import plot

__all__ = ["live", "page"]

_MARKS: Final = {True: "✓", False: "✗"}
_WATCHES: Final = 5
"""Watch windows that are shown."""

HELP: Final = {
    "collections": ("concepts", "phases"),
    "fleet": ("concepts", "the-flip"),
    "rates": ("concepts", "what-is-compared"),
    "gates": ("concepts", "gates"),
    "findings": ("metrics", "findings-and-who-may-see-them"),
    "journal": ("runbook", "the-journal-by-hand"),
    "indexes": ("configuration", "collections"),
}
"""The page and heading of the manual that explains a section."""


def page(content: str, *, notice: str, acts: bool) -> str:
    """The whole page. `content` is the result of `live`; `notice` is shown if there is none; `acts`: whether an admin
    token is configured."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "shadow"),
        tag("link", rel="stylesheet", href="console/console.css"),
        tag("link", rel="icon", href="console/icon.svg"),
        tag("script", src="console/console.js", defer=True),
    )
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#live", class_="skip"),
        tag("header", tag("h1", "shadow"), tag("p", "", id="freshness"), _token_form(acts)),
        tag("p", notice, id="notice", class_="notice", hidden=not notice),
        tag("div", "", id="outcome", role="status", aria_live="polite", tabindex="-1"),
        tag("main", Markup(content), id="live", tabindex="-1"),
    )
    return f"<!doctype html>{tag('html', head, body, lang='en')}"


def _token_form(acts: bool) -> Markup:
    if not acts:
        return tag("p", "Read only: no admin token is configured (SHADOW_ADMIN_TOKEN).", class_="quiet")
    return tag(
        "form",
        tag("label", "Admin token", for_="token"),
        tag("input", type="password", id="token", autocomplete="off", spellcheck="false"),
        tag("button", "Use it", type="submit"),
        id="token-form",
    )


def live(
    status: ProcessStatus,
    found: Mapping[str, Any],
    rates: Mapping[str, list[tuple[float, float]]],
    *,
    acts: bool,
    docs_url: str = "",
) -> str:
    """The changing part: verdict, collections, fleet, plots, gates, findings, journal, indexes. `docs_url`: the address
    of the manual on the web; without it, sections name the command that prints their explanation."""

    def section(id: str, title: str, *children: Child) -> Markup:
        return tag(
            "section", tag("h2", title, id=f"{id}-title"), _help(id, docs_url), *children, aria_labelledby=f"{id}-title"
        )

    readiness = status.readiness or Readiness()
    return join(
        (
            _verdict(readiness),
            section("collections", "Collections", _collections(status, readiness, acts)),
            section("fleet", "Processes", _fleet(status.fleet), _relays(status.relay)),
            section("rates", "Comparisons a second, last hour", _plots(rates)),
            section("gates", "Gates", _gates(readiness.gates)),
            section("findings", "Findings", _findings(found, acts)),
            section("journal", "Journal and work queues", _journal(status)),
            section("indexes", "Queries that scan on DynamoDB", _indexes(status.indexes)),
        )
    )


def _help(id: str, docs_url: str) -> Markup:
    topic, anchor = HELP[id]
    url = manual.address(docs_url, topic, anchor)
    if url:
        return tag("p", tag("a", "Explained in the manual", href=url, rel="noreferrer"), class_="quiet help")
    return tag("p", "Explained by ", tag("code", manual.where("", topic, anchor)), class_="quiet help")


def _verdict(readiness: Readiness) -> Markup:
    safe = readiness.safe
    title = "Safe to flip" if safe else "Not safe to flip"
    text = ("Every gate of every collection is open.",) if safe else ("Fix this first: ", _advice(readiness.look_at))
    return tag("div", tag("h2", title), tag("p", *text), class_=f"verdict {'good' if safe else 'bad'}", id="verdict")


def _advice(text: str) -> Markup:
    """A sentence that may end in a command: its words, including `--options`, are not broken."""
    before, found, command = text.partition("shadow ")
    if not found or (before and not before.endswith((": ", "; "))):
        return join((text,))
    first, *rest = (tag("span", word, class_="word") for word in f"{found}{command}".split(" "))
    return join((before, tag("code", first, *(child for word in rest for child in (" ", word)))))


def _table(head: Iterable[str], rows: Iterable[Iterable[Child]], *, caption: str, empty: str) -> Markup:
    head = list(head)
    body = [
        tag("tr", *(tag("td", cell, data_label=name) for name, cell in zip(head, row, strict=True))) for row in rows
    ]
    if not body:
        return tag("p", empty, class_="quiet")
    titles = tag("tr", *(tag("th", each, scope="col") for each in head))
    table = tag("table", tag("caption", caption), tag("thead", titles), tag("tbody", *body))
    return tag("div", table, class_="scroll", id=_slug(caption), tabindex="0", role="region", aria_label=caption)


def _slug(text: str) -> str:
    """An id, so that the keyboard focus stays in place when the page is refreshed."""
    return "t-" + "".join(each if each.isalnum() else "-" for each in text.lower())


def _collections(status: ProcessStatus, readiness: Readiness, acts: bool) -> Markup:
    safe = readiness.collections
    rows: list[list[Child]] = []
    for name, route in status.collections.items():
        waiting = status.journal.waiting(name)
        verdicts = status.totals.get("collections", {}).get(name, {})
        compared = sum(verdicts.get(each, 0) for each in ("match", "excused", "mismatch"))
        cells: list[Child] = [name, route.primary, route.phase, route.writes, f"{route.shadow_reads:.0%}"]
        rows.append([*cells, waiting, compared, verdicts.get("mismatch", 0), _mark(safe.get(name, False))])
        if acts:
            other = route.primary.other
            rows[-1].append(_button(f"Flip to {other}", "flip", f"flip-{name}", collection=name, to=other))
    head = ["Collection", "Primary", "Phase", "Writes", "Shadow reads", "Open", "Compared", "Mismatches", "Gates"]
    caption = "Routing of each collection, and figures since the start"
    return _table([*head, *(["Flip"] if acts else [])], rows, caption=caption, empty="None is configured.")


def _fleet(fleet: Mapping[str, Any]) -> Markup:
    """Every process and its routes; those that differ from the others are marked."""
    if fleet.get("state", "ok") != "ok":
        return tag("p", f"The control store does not answer: {fleet['state']}. No flip can be made.", class_="bad")
    apart = fleet.get("disagreements", {})
    rows = [
        [
            f"{each['name']}{' (tool)' if each['tool'] else ''}",
            name,
            standing["primary"],
            standing["phase"],
            standing["file"],
            _apart(name in apart and not each["tool"]),
        ]
        for each in fleet.get("members", ())
        for name, standing in each["standing"].items()
    ]
    head = ["Process", "Collection", "Primary", "Phase", "Its file asks for", "Alike"]
    table = _table(head, rows, caption="The processes of the fleet, as they report", empty="None is registered.")
    table = join((table, _ramps(fleet.get("ramps", ())), _watches(fleet.get("watches", ()))))
    flip = fleet.get("flip")
    if flip is None:
        return table
    said = f": {flip['said']}" if flip["said"] else ""
    return join((table, tag("p", f"The last flip is {flip['state']}, by {flip['by']}{said}", class_="quiet")))


def _ramps(found: Iterable[Mapping[str, Any]]) -> Markup:
    """How far each ramp of reads is, and what comes next."""
    rows: list[list[Child]] = []
    for each in found:
        following = "-"
        if each["next_share"] is not None:
            when = "once the guards hold" if each["next_at"] is None else f"at {_moment(each['next_at'])}"
            following = f"{each['next_share']:.4g} {when}"
        rows.append([each["collection"], each["store"], f"{each['share']:.4g}", following, each["state"]])
        rows[-1].append(each["waits"] or "-")
    if not rows:
        return join(())
    head = ["Collection", "Store", "Share of the reads", "Next step", "State", "Waits for, or stopped because"]
    return _table(head, rows, caption="Ramps of reads", empty="None.")


def _watches(found: Iterable[Mapping[str, Any]]) -> Markup:
    """The watch windows of flips with the figures of their guards; of those that are over the last ones."""
    rows: list[list[Child]] = []
    for each in [*found][:_WATCHES]:
        until = "-" if each["ends_at"] is None else _moment(each["ends_at"])
        if not each["open"]:
            until = _moment(each["ended"])
        state = each["state"].replace("_", " ") + ("" if each["takes_back"] else ", only reported")
        figures = "; ".join(f"{name}: {said}" for name, said in each["guards"].items()) if each["open"] else ""
        rows.append([", ".join(each["collections"]), each["to"], state, until, figures or "-"])
        rows[-1].append("; ".join(said for said in (each["reason"], each["waits"]) if said) or "-")
    if not rows:
        return join(())
    head = ["Collections", "Flipped to", "State", "Until", "Guards", "Reason, or what is not known"]
    return _table(head, rows, caption="Watch windows of flips", empty="None.")


def _relays(found: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Who relays the out-of-band writes of each store, and what is not relayed, with the reason."""
    rows: list[list[Child]] = []
    for store, each in found.items():
        counts = ", ".join(f"{name} {of_it['count']}" for name, of_it in each["collections"].items())
        untold = [each["fault"], *(f"{name}: {reason}" for name, reason in each.get("unread", {}).items())]
        rows.append([store, each["holder"] or "nobody", f"{each['behind']:.1f} s", counts or "none yet"])
        rows[-1].append("; ".join(filter(None, untold)) or "-")
    if not rows:
        return join(())
    head = ["Store", "Relayed by", "Behind", "Relayed", "What the store does not tell"]
    return _table(head, rows, caption="Relay of out-of-band writes", empty="None.")


def _apart(differs: bool) -> Markup:
    return tag("span", _MARKS[not differs], " no" if differs else " yes", class_=f"mark {'bad' if differs else 'good'}")


def _mark(ok: bool) -> Markup:
    return tag("span", _MARKS[ok], " open" if ok else " closed", class_=f"mark {'good' if ok else 'bad'}")


def _button(text: str, action: str, id: str, /, **data: str) -> Markup:
    attributes: dict[str, Child | bool] = {f"data_{name}": value for name, value in data.items()}
    return tag("button", text, type="button", id=id, data_action=action, **attributes)


def _plots(rates: Mapping[str, list[tuple[float, float]]]) -> Markup:
    return tag("div", *(plot(name, points) for name, points in rates.items()), class_="plots")


def _gates(every: Sequence[Gate]) -> Markup:
    """The closed ones first, the open ones in a section that shows their number."""
    closed, opened = [each for each in every if not each.ok], [each for each in every if each.ok]
    rows = [[each.collection, each.name, _mark(False), each.said, _advice(each.look_at)] for each in closed]
    head = ["Collection", "Gate", "State", "Figure"]
    first = _table([*head, "What to do"], rows, caption="What must hold before a flip, and does not", empty="None.")
    rest = _table(
        head,
        [[each.collection, each.name, _mark(True), each.said] for each in opened],
        caption="What must hold before a flip, and does",
        empty="None.",
    )
    title = f"{len(opened)} of {len(every)} gates are open"
    return join((first, tag("details", tag("summary", title, id="s-open-gates"), rest, id="open-gates")))


def _findings(found: Mapping[str, Any], acts: bool) -> Markup:
    summary, groups = found["summary"], found["groups"]
    counts = f"{summary['open']} open of {summary['kept']} kept; seen {summary['seen']} times"
    rows = [
        [each["collection"], each["kind"], each["path"], each["count"], _moment(each["last_seen"])]
        for each in groups[:20]
    ]
    grouped = _table(
        ["Collection", "Kind", "Path", "Count", "Last seen"], rows, caption="Findings by kind and path", empty="None."
    )
    return join((tag("p", counts, class_="quiet"), grouped, *(_finding(each, acts) for each in found["findings"])))


def _finding(each: Mapping[str, Any], acts: bool) -> Markup:
    id = each["id"]
    state = "healed" if each["healed"] else "open"
    title = f"{each['collection']} {each['key_hash']}: {each['kind']}, {state}, {each['count']} times"
    facts = (
        f"First seen {_moment(each['first_seen'])}, last {_moment(each['last_seen'])}; version "
        f"{each['primary_state'] or '?'} in the primary, {each['secondary_state'] or '?'} in the secondary."
    )
    if trace := each.get("first_trace"):
        facts += f" First seen in trace {trace}."
    rows = [
        [
            diff["path"] or "(document)",
            diff["kind"],
            f"{diff['primary_type']} {diff['primary_hash']}",
            f"{diff['secondary_type']} {diff['secondary_hash']}",
        ]
        for diff in each["differences"]
    ]
    table = _table(
        ["Path", "Kind", "Primary", "Secondary"], rows, caption=f"Differences of {id}", empty="The whole answer."
    )
    buttons: list[Child] = []
    if acts and each["key_hash"]:
        buttons = [
            _button("What would a repair do?", "dry-run", f"dry-{id}", id=id),
            _button("Heal", "heal", f"heal-{id}", id=id),
            _button("Reveal values", "reveal", f"reveal-{id}", id=id),
        ]
    return tag("details", tag("summary", title, id=f"s-{id}"), tag("p", facts), table, tag("p", *buttons), id=f"f-{id}")


def _journal(status: ProcessStatus) -> Markup:
    journal = status.journal
    names = dict.fromkeys((*journal.open, *journal.deferred, *journal.verify_since))
    rows: list[list[Child]] = [
        [name, journal.open.get(name, 0), journal.deferred.get(name, 0), journal.verify_since.get(name, "-")]
        for name in names
    ]
    depths = "; ".join(f"{name}: {queue.depth} of {queue.capacity}" for name, queue in status.queues.items())
    facts = f"Oldest entry: {journal.oldest_seconds:.1f} s. Work queues: {depths}."
    table = _table(
        ["Collection", "Open", "Deferred", "Unverified since"], rows, caption="Writes under way", empty="It is empty."
    )
    return join((tag("p", facts), table))


def _indexes(advice: Iterable[Mapping[str, Any]]) -> Markup:
    rows: list[list[Child]] = [
        [
            each["collection"] or "-",
            each["shape"],
            each["times"],
            each["items_read"],
            each["items_returned"],
            each["suggested_index"] or "none would",
        ]
        for each in advice
    ]
    head = ["Collection", "Query", "Scans", "Read", "Returned", "Index that would serve it"]
    return _table(head, rows, caption="Index adviser", empty="None since the application started.")


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
