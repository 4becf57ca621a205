"""Printing: the same two tables as text, as reStructuredText, and as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .environments import OWN, Peer
from .figures import Figures, Key
from .targets import TARGETS, Outcome, judge, slower
from .work import BYTES, WORK

Table = list[list[str]]
SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    BYTES: ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}


def digits(value: float) -> str:
    """Return a number with about three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def amount(value: float, unit: str) -> str:
    """Return seconds or bytes in the unit that suits them."""
    scale, name = next((each for each in SCALES[unit] if value >= each[0]), SCALES[unit][-1])
    return f"{digits(value / scale)} {name}"


def figures_table(figures: Figures, peers: Sequence[Peer]) -> Table:
    """Return all medians: those of this project, and those of each peer with how many times ours they are."""
    found = [["work", "size", "for each", *(peer.name for peer in peers)]]
    for row, work in figures.rows.items():
        for size in work.sizes:
            cells = [cell(figures, Key(row, size, peer.name)) for peer in peers]
            if any(Key(row, size, peer.name) in figures.rounds for peer in peers):
                found.append([row, f"{size:,} {work.size}", work.each, *cells])
    return found


def cell(figures: Figures, key: Key) -> str:
    """Return one median, with its ratio to ours."""
    median, work = figures.median(key), figures.rows[key.row]
    if median is None:
        expected = figures.spared.get(key._replace(row=work.name))
        return "-" if expected is None else f"(about {amount(expected, 's')})"
    ratio = figures.ratio([key], [key._replace(peer=OWN)])
    beside = "" if key.peer == OWN or ratio is None else f" ({digits(ratio)}x)"
    return amount(median, work.unit) + beside


def targets_table(figures: Figures, outcomes: Iterable[Outcome]) -> Table:
    """Return what was to be reached, and what was."""
    found = [["figure", "at", "routilux", "ratio", "to reach", "met"]]
    for target, size, figure, ratio, met in outcomes:
        bound = f"at most {target.most:g}" if target.most is not None else f"at least {target.least:g}"
        if figure is None or ratio is None:
            found.append([target.what, "-", "-", "-", bound, "not measured"])
            continue
        row = next(each.row for each in (*target.below, *target.above) if each.peer == OWN)
        work = figures.rows[row]
        at = f"{size:,} {work.size}" if size else "-"
        found.append([target.what, at, amount(figure, work.unit), digits(ratio), bound, "yes" if met else "NO"])
    behind = len(behind_of(figures))
    found.append(
        ["times that a peer is faster, but for the import", "-", "-", str(behind), "0", "NO" if behind else "yes"]
    )
    return found


def behind_of(figures: Figures) -> list[str]:
    """Return where a peer is faster than this project, and how long it takes of our time."""
    return [
        f"{key.row}, {key.size:,} {figures.rows[key.row].size}: {key.peer} takes {digits(share)} of our time"
        for key, share in slower(figures)
    ]


def as_text(table: Table) -> str:
    """Return a table with its columns in line."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_rst(table: Table) -> str:
    """Return a table as a directive."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in table:
        lines += [f"   {'* -' if place == 0 else '  -'} {value.strip()}" for place, value in enumerate(row)]
    return "\n".join(lines)


def page(words: str, figures: Figures, targets: Table, medians: Table) -> str:
    """Return what the documentation includes: the tables, where a peer is faster, and what each row is about."""
    sections = {
        "What is to be reached": [as_rst(targets), *(f"- {each}." for each in behind_of(figures))],
        "All figures": [as_rst(medians)],
        "What the rows are": [f"{work.name}\n   {work.note}" for work in WORK],
    }
    parts = [f"Measured on {words}."]
    for title, body in sections.items():
        parts += [f"{title}\n{'-' * len(title)}", *body]
    return "\n\n".join(parts)


def machine() -> dict[str, Any]:
    """Return what the figures were taken on, and when."""
    model = platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line.partition(":")[2].strip() for line in cpus.read_text().splitlines() if "model name" in line]
        model = f"{names[0]} ({model})" if names else model
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": model,
        "processors": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "load": [round(each, 2) for each in os.getloadavg()],
    }


def in_words(where: Mapping[str, Any], rounds: int) -> str:
    """Return the machine as a sentence."""
    return (
        f"{where['date']}, {where['python']}, SQLite {where['sqlite']}, {where['system']}, {where['processors']} x "
        f"{where['processor']}, load {where['load'][0]} at the start; medians of {rounds} rounds or more"
    )


def as_json(figures: Figures, outcomes: Iterable[Outcome], where: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything, with the figures of each round, in seconds or bytes."""
    return {
        "machine": dict(where),
        "figures": [
            {
                "work": key.row,
                "size": key.size,
                "peer": key.peer,
                "unit": figures.rows[key.row].unit,
                "each": figures.rows[key.row].each,
                "rounds": rounds,
                "median": figures.median(key),
                "ratio": figures.ratio([key], [key._replace(peer=OWN)]),
            }
            for key, rounds in figures.rounds.items()
        ],
        "targets": [
            {
                "what": target.what,
                "size": size,
                "figure": figure,
                "ratio": ratio,
                "most": target.most,
                "least": target.least,
                "met": met,
            }
            for target, size, figure, ratio, met in outcomes
        ],
        "slower": [{**key._asdict(), "ratio": share} for key, share in slower(figures)],
        "spared": [{**key._asdict(), "seconds": seconds} for key, seconds in figures.spared.items()],
        "problems": figures.problems,
    }


def outcomes_of(figures: Figures) -> list[Outcome]:
    """Return what all targets came to."""
    return [judge(figures, target) for target in TARGETS]
