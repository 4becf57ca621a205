"""The pictures of flows in the documentation: they show what ``to_mermaid`` prints, and nothing covers anything."""

from __future__ import annotations

import re
import sys
from html import unescape
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given, strategies as st

from routilux import Flow, Routine

sys.path.append(str(Path(__file__).parents[1] / "docs"))

import flowcharts

SVG = "{http://www.w3.org/2000/svg}"


class Node(Routine):
    def __init__(self, events, slots):
        super().__init__()
        for name in slots:
            self.define_slot(name)
        for name in events:
            self.define_event(name)


def flow_of(names, wires):
    """Return a flow of routines with these names, connected as these triples of (source, target, name) say."""
    flow = Flow("f")
    each = sorted({name for _, _, name in wires})
    for name in names:
        flow.add_routine(Node(each, each), name)
    for source, target, name in wires:
        flow.connect(names[source], name, names[target], name)
    return flow


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_names_and_connections_are_shown_as_they_are():
    flow = flow_of(["<a> & b", "c"], [(0, 1, "x"), (0, 1, "y"), (1, 1, 'z"')])
    shown = ['(z" -> z")', "<a> & b", "Node", "Node", "c", "x -> x", "y -> y"]
    assert sorted(texts(flowcharts.draw(flow.to_mermaid()))) == shown


def test_a_drawing_is_found_in_what_a_program_prints():
    drawing = flow_of(["a", "b"], [(0, 1, "x")]).to_mermaid()
    assert flowcharts.found(f"before\n{drawing}\nafter\n") == drawing
    assert flowcharts.found("before\nafter\n") == ""


@st.composite
def flows(draw):
    many = draw(st.integers(1, 7))
    ends = st.integers(0, many - 1)
    wires = draw(st.lists(st.tuples(ends, ends, st.sampled_from(["x", "output", "y"])), max_size=12, unique=True))
    names = [f"routine {number} {'x' * draw(st.integers(0, 20))}" for number in range(many)]
    return flow_of(names, wires)


@given(flows())
def test_nothing_lies_on_anything_else_or_outside(flow):
    chart = flowcharts.read(flow.to_mermaid())
    ways = flowcharts._set_rows(chart)
    rows = flowcharts._rows([*chart.boxes.values(), *(place for way in ways for place in way[0])])
    flowcharts._order(rows)
    flowcharts._move(rows)
    places = [place for row in rows for place in row]
    assert len(places) == len(set(places))
    for one, other in combinations(places, 2):
        apart_x = abs(one.x - other.x) - (one.width + other.width) / 2
        apart_y = abs(one.y - other.y) - (one.height + other.height) / 2
        assert max(apart_x, apart_y) > 1
    left, top, width, height = (
        float(each) for each in re.search(r'viewBox="(.*?)"', flowcharts.draw(flow.to_mermaid()))[1].split()
    )
    for place in places:
        assert left <= place.x - place.width / 2
        assert place.x + place.width / 2 <= left + width + 0.1
        assert top <= place.y - place.height / 2
        assert place.y + place.height / 2 <= top + height + 0.1


@given(flows())
def test_every_connection_has_an_arrow_or_is_a_line_of_its_routine(flow):
    svg = flowcharts.draw(flow.to_mermaid())
    ends = {(each.source_id, each.target_id) for each in flow.connections}
    assert svg.count("<path") == sum(source != target for source, target in ends)
    shown = [text for text in texts(svg) if "->" in text]
    assert len(shown) == len(flow.connections)
    assert svg.count("<rect") == len(flow.routines)
    assert unescape(svg).count("<title>") == 1


def test_what_comes_from_outside_has_a_box_of_its_own():
    flow, routine = Flow("outside"), Routine()
    routine.define_slot("answer", external=True)
    flow.add_routine(routine, "desk")
    assert sorted(texts(flowcharts.draw(flow.to_mermaid()))) == ["Routine", "answer", "desk", "outside"]
