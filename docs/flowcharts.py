"""Pictures of flows: what ``Flow.to_mermaid`` prints on a page is drawn below it, when the page is built.

The text is read into a `Chart`: boxes, and arrows with labels. A box is put one row below the lowest of those that lead
to it; arrows that would then go up are turned around for as long as rows are looked for. Between two rows of boxes is a
row for the labels, in which an arrow that passes by has a place as well. So every arrow goes from row to row, and
nothing lies on anything else. Within a row, the order is that of the neighbours above and below, and then each one
moves towards the middle of its neighbours as far as the others let it. The result is SVG that takes its colours from
the page.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from itertools import pairwise

HEAD = "flowchart TD\n"
DRAWING = re.compile(rf"^{HEAD}(?: +.+\n?)*", re.MULTILINE)
BOX = re.compile(r' +(n\d+|outside)\(?\["(.*)"\]\)?')
ARROW = re.compile(r' +(n\d+|outside) -->\|"(.*)"\| (n\d+)')

LETTER, LINE = 7.3, 17  # of the monospaced font below
PADDING, GAP, BETWEEN = 12, 22, 22
ROUNDS = 12


@dataclass(eq=False)
class Place:
    """Something in a row: a box, or a part of an arrow, which has a label at most once."""

    lines: list[str]
    box: bool = False
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)

    @property
    def width(self) -> float:
        return max(map(len, self.lines), default=0) * LETTER + (2 * PADDING if self.box else 4)

    @property
    def height(self) -> float:
        return len(self.lines) * LINE + (2 * PADDING if self.box else 0)


@dataclass
class Chart:
    """The boxes, and the arrows as (from, to, lines of the label)."""

    boxes: dict[str, Place] = field(default_factory=dict)
    arrows: dict[tuple[str, str], list[str]] = field(default_factory=dict)


def found(output: str) -> str:
    """Return the drawing within what a program has printed, '' if there is none."""
    drawing = DRAWING.search(output)
    return drawing[0] if drawing else ""


def read(text: str) -> Chart:
    """Return what a text says that ``Flow.to_mermaid`` has printed. A routine's way to itself becomes a line of it."""
    chart = Chart()
    for line in text.removeprefix(HEAD).splitlines():
        if box := BOX.fullmatch(line):
            chart.boxes[box[1]] = Place([_plain(part) for part in box[2].split("<br/>")], box=True)
        elif (arrow := ARROW.fullmatch(line)) and arrow[1] == arrow[3]:
            chart.boxes[arrow[1]].lines.append(f"({_plain(arrow[2])})")
        elif arrow:
            chart.arrows.setdefault((arrow[1], arrow[3]), []).append(_plain(arrow[2]))
        else:
            raise ValueError(f"this is no line of a drawing: {line!r}")
    return chart


def draw(text: str, title: str = "A flow") -> str:
    """Return a drawing that ``Flow.to_mermaid`` has printed as SVG."""
    chart = read(text)
    ways = _set_rows(chart)
    rows = _rows([*chart.boxes.values(), *(place for way in ways for place in way[0])])
    _order(rows)
    _move(rows)
    return _svg(rows, ways, title)


def _plain(label: str) -> str:
    return html.unescape(re.sub(r"#(\d+);", r"&#\1;", label))


def _set_rows(chart: Chart) -> list[tuple[list[Place], bool]]:
    """Give each box its row, and return the ways of the arrows: their places from top to bottom, and if they go up."""
    turned = _turned(chart)
    down = {arrow: arrow[::-1] if arrow in turned else arrow for arrow in chart.arrows}
    for _ in chart.boxes:
        for top, bottom in down.values():
            chart.boxes[bottom].row = max(chart.boxes[bottom].row, chart.boxes[top].row + 2)
    ways = []
    for arrow, (top, bottom) in down.items():
        first, last = chart.boxes[top], chart.boxes[bottom]
        rows = range(first.row + 1, last.row)
        labelled = rows[-1] if arrow in turned else rows[0]
        between = [Place(chart.arrows[arrow] if row == labelled else [], row=row) for row in rows]
        way = [first, *between, last]
        for upper, lower in pairwise(way):
            upper.below.append(lower)
            lower.above.append(upper)
        ways.append((way, arrow in turned))
    return ways


def _turned(chart: Chart) -> set[tuple[str, str]]:
    """Return the arrows that lead back to a box from which they can be reached, looked for in order."""
    after: dict[str, list[str]] = {name: [] for name in chart.boxes}
    for source, target in chart.arrows:
        after[source].append(target)
    turned, done, path = set(), set(), []

    def visit(name: str) -> None:
        path.append(name)
        for target in after[name]:
            if target in path:
                turned.add((name, target))
            elif target not in done:
                visit(target)
        done.add(path.pop())

    for name in chart.boxes:
        if name not in done:
            visit(name)
    return turned


def _rows(places: list[Place]) -> list[list[Place]]:
    known = list(dict.fromkeys(places))
    return [[each for each in known if each.row == row] for row in range(max((p.row for p in known), default=-1) + 1)]


def _order(rows: list[list[Place]]) -> None:
    for number in range(ROUNDS):
        at = {place: place_number for row in rows for place_number, place in enumerate(row)}
        for row in rows if number % 2 == 0 else rows[::-1]:
            means = {}
            for place in row:
                near = place.above if number % 2 == 0 else place.below
                means[place] = sum(at[each] for each in near) / len(near) if near else at[place]
            row.sort(key=means.__getitem__)
            at.update({place: place_number for place_number, place in enumerate(row)})


def _move(rows: list[list[Place]]) -> None:
    """Give each place its x and y, both of the middle."""
    for number in range(2 * ROUNDS):
        for row in rows if number % 2 == 0 else rows[::-1]:
            wanted = []
            for place in row:
                near = (place.above if number % 2 == 0 else place.below) or place.above or place.below
                wanted.append(sum(each.x for each in near) / len(near) if near else place.x)
            apart = [(left.width + right.width) / 2 + GAP for left, right in pairwise(row)]
            to_right, to_left = wanted[:], wanted[:]
            for n, distance in enumerate(apart):
                to_right[n + 1] = max(to_right[n + 1], to_right[n] + distance)
            for n, distance in reversed(list(enumerate(apart))):
                to_left[n] = min(to_left[n], to_left[n + 1] - distance)
            for place, one, other in zip(row, to_right, to_left, strict=True):
                place.x = (one + other) / 2
    left = min((place.x - place.width / 2 for row in rows for place in row), default=0)
    top = 1.0
    for row in rows:
        height = max(place.height for place in row)
        for place in row:
            place.x += 1 - left
            place.y = top + height / 2
        top += height + BETWEEN


def _svg(rows: list[list[Place]], ways: list[tuple[list[Place], bool]], title: str) -> str:
    places = [place for row in rows for place in row]
    width = max((place.x + place.width / 2 for place in places), default=0) + 1
    height = max((place.y + place.height / 2 for place in places), default=0) + 1
    parts = [
        f'<svg class="flowchart" role="img" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}"><title>{html.escape(title)}</title>'
    ]
    for way, up in ways:
        parts.append(_arrow(way, up))
    for place in places:
        x, y = place.x - place.width / 2, place.y - place.height / 2
        if place.box:
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" rx="4"/>'
            )
        for number, line in enumerate(place.lines):
            kind = "name" if place.box and number == 0 else "more"
            base = y + (PADDING if place.box else 0) + (number + 0.75) * LINE
            parts.append(f'<text class="{kind}" x="{place.x:.1f}" y="{base:.1f}">{html.escape(line)}</text>')
    return "\n".join([*parts, "</svg>"])


def _arrow(way: list[Place], up: bool) -> str:
    """Return the line of an arrow, which leaves out its label, and its tip."""
    drawn = []
    for upper, lower in pairwise(way):
        x0, y0 = _end(upper, lower, 1)
        x1, y1 = _end(lower, upper, -1)
        middle = (y0 + y1) / 2
        drawn.append(f"M{x0:.1f},{y0:.1f} C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}")
    x, y = _end(way[0], way[1], 1) if up else _end(way[-1], way[-2], -1)
    back = y + 7 if up else y - 7
    drawn.append(f"M{x - 4:.1f},{back:.1f} L{x:.1f},{y:.1f} L{x + 4:.1f},{back:.1f}")
    return f'<path d="{" ".join(drawn)}"/>'


def _end(place: Place, other: Place, side: int) -> tuple[float, float]:
    """Return where a line that comes from another place ends: below this one (side 1), or above it (-1)."""
    y = place.y + side * (place.height / 2 + (2 if place.lines and not place.box else 0))
    if not place.box:
        return place.x, y
    room = max(place.width / 2 - PADDING, 0)
    return min(max(other.x, place.x - room), place.x + room), y
