"""What a flow says about itself before it runs: its findings and its drawings."""

from __future__ import annotations

import re
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain

from routilux import DeclarationError, Finding, Flow, Routine

ODD_NAMES = (
    ["end", 'a"b', "a]b", "n0", "#quot;", "%%{init}%%", "`x`", "1. x", "a\nb", "a\r\nb", "\\", '\\"', "\\N", "&amp;"],
    ["<br/>", "__init__", "$$x$$", "-->|x|", "\x00", "\u2028", "\ud800", "日本", '"]; n0 --> n1', "style a:b#c;"],
)
NAMES = st.text(min_size=1, max_size=12) | st.sampled_from([*ODD_NAMES[0], *ODD_NAMES[1]])


class Node(Routine):
    """Any slots with one handler, any events."""

    def __init__(self, slots: Any = ("input",), events: Any = (), handler: Any = None, **slot_options: Any) -> None:
        super().__init__()
        for name in slots:
            self.define_slot(name, handler=handler or self.process, **slot_options)
        for name, params in dict(events).items():
            self.define_event(name, params)

    def process(self, **payload: Any) -> None: ...


def ring(*ids: str, flow: Flow | None = None) -> Flow:
    """Return a flow in which each routine's ``output`` goes to the next, and the last one's to the first."""
    flow = flow or Flow("ring")
    for routine_id in ids:
        flow.add_routine(Node(events={"output": None}), routine_id)
    for left, right in pairwise([*ids, ids[0]]):
        flow.connect(left, "output", right, "input")
    return flow


def found(flow: Flow, kind: str) -> list[str | None]:
    return [finding.routine_id for finding in flow.validate() if finding.kind == kind]


def only(flow: Flow, kind: str) -> str:
    """Return the message of the one finding of a kind."""
    (finding,) = (finding for finding in flow.validate() if finding.kind == kind)
    assert str(finding) == finding.message
    return finding.message


# --- findings ---------------------------------------------------------------------------------------------------


def test_a_sound_flow_has_no_findings() -> None:
    assert chain(Source(), Step(lambda step, **payload: None), Sink()).validate() == []


def test_a_flow_without_routines_is_a_finding_of_its_own() -> None:
    assert Flow("bare").validate() == [
        Finding("empty", None, "flow 'bare' has no routines; add one with add_routine()")
    ]


def test_a_finding_cannot_be_changed() -> None:
    (finding,) = Flow().validate()
    with pytest.raises(AttributeError):
        finding.kind = "other"  # type: ignore[misc]


def test_findings_come_by_kind_and_then_in_the_order_of_the_flow() -> None:
    flow = ring("z", "a")
    flow.add_routine(Node(["trigger"], {"b": None, "a": None}), "entry")
    kinds = [(finding.kind, finding.routine_id) for finding in flow.validate()]
    assert kinds == [
        ("unreachable", "z"),
        ("unreachable", "a"),
        ("unconnected-event", "entry"),
        ("unconnected-event", "entry"),
        ("cycle", "z"),
    ]
    assert [finding.message for finding in flow.validate()] == [finding.message for finding in flow.validate()]


def test_validating_changes_nothing_and_a_flow_with_findings_runs() -> None:
    flow = chain(Source([1]), sink := Sink())
    flow.add_routine(Node(), "alone")
    plan = flow.plan()
    assert found(flow, "unreachable") == ["alone"]
    assert flow.plan() is plan
    assert str(flow.execute("r0").status) == "completed"
    assert sink.got == [1]


def test_what_no_routine_with_a_trigger_leads_to_is_unreachable() -> None:
    flow = chain(Source(), Sink())
    flow.add_routine(Node(["left", "right"], {"output": None}), "lost")
    flow.add_routine(Sink(), "after")
    flow.connect("lost", "output", "after", "input")
    assert found(flow, "unreachable") == ["lost", "after"]
    message = next(str(finding) for finding in flow.validate() if finding.routine_id == "lost")
    assert message == (
        "flow 'chain': routine 'lost' cannot be reached from where executions start, the routines with a slot "
        "'trigger': r0; connect an event to its slot 'left' or 'right', or define a slot 'trigger' to start there"
    )


def test_without_any_trigger_executions_start_where_nothing_comes_in() -> None:
    flow = chain(Step(lambda step: None), Sink())
    assert found(flow, "unreachable") == []
    ring("a", "b", flow=flow)
    assert found(flow, "unreachable") == ["a", "b"]


def test_when_all_routines_wait_for_each_other_none_is_reachable() -> None:
    flow = ring("a", "b")
    assert found(flow, "unreachable") == ["a", "b"]
    assert "no routine to start with" in str(flow.validate()[0])


def test_a_routine_without_slots_is_unreachable() -> None:
    flow = chain(Source(), Sink())
    flow.add_routine(Node([]), "deaf")
    assert "routine 'deaf' has no slot, so nothing reaches it" in only(flow, "unreachable")


def test_a_long_chain_is_checked_without_recursion() -> None:
    flow = chain(Source(), *(Step(lambda step: None) for _ in range(3_000)))
    assert [finding.routine_id for finding in flow.validate()] == ["r3000"]  # its output is connected to nothing


def test_a_slot_without_a_handler_is_found() -> None:
    routine = Node(["trigger"])
    routine.define_slot("ignored")
    flow = Flow("f")
    flow.add_routine(routine, "r")
    assert only(flow, "no-handler") == (
        "flow 'f': slot 'ignored' of routine 'r' has no handler: what arrives is recorded and nothing else happens; "
        "pass handler= to define_slot()"
    )


def needing_two(value: Any, unit: Any, label: Any = "") -> None: ...


def feeding(handler: Any, *events: Any, mapping: Any = None, **slot_options: Any) -> Flow:
    """Return a flow in which a source has one event per list of parameters, all connected to one handler."""
    flow = Flow("f")
    flow.add_routine(Node(["trigger"], {f"e{index}": params for index, params in enumerate(events)}), "source")
    flow.add_routine(Node(handler=handler, **slot_options), "target")
    for index in range(len(events)):
        flow.connect("source", f"e{index}", "target", "input", mapping)
    return flow


def test_a_parameter_that_no_connected_event_declares_is_missing() -> None:
    assert only(feeding(needing_two, ["value", "units"]), "missing-parameter") == (
        "flow 'f': slot 'input' of routine 'target': the handler needs parameter 'unit', and nothing delivers it "
        "(source.e0 -> target.input; did you mean 'units'? parameters: units, value); add it to the event's "
        "output_params, rename one with param_mapping, or give it a default"
    )


def test_each_missing_parameter_is_a_finding_in_the_order_of_the_signature() -> None:
    flow = feeding(needing_two, [])
    messages = [str(finding) for finding in flow.validate() if finding.kind == "missing-parameter"]
    assert [re.findall(r"needs parameter '(\w+)'", message) for message in messages] == [["value"], ["unit"]]
    assert "there are no parameters" in messages[0]


@pytest.mark.parametrize(
    ("events", "mapping"),
    [
        ([["value", "unit"]], None),
        ([["value"], ["unit"]], None),
        ([None], None),
        ([["value", "size"]], {"size": "unit"}),
        ([None], {"unit": "value", "value": "unit"}),
    ],
)
def test_a_parameter_that_some_connected_event_may_deliver_is_not_missing(events: Any, mapping: Any) -> None:
    assert found(feeding(needing_two, *events, mapping=mapping), "missing-parameter") == []


@pytest.mark.parametrize("params", [["value", "size"], None])
def test_a_parameter_that_is_renamed_away_is_missing(params: Any) -> None:
    flow = feeding(lambda value, size: None, params, mapping={"value": "size", "size": "value"})
    assert found(flow, "missing-parameter") == []
    flow = feeding(lambda value, **rest: None, params, mapping={"value": "other"})
    assert found(flow, "missing-parameter") == ["target"]


def test_a_sole_parameter_receives_the_whole_payload_and_misses_only_an_empty_one() -> None:
    assert found(feeding(lambda payload: None, ["x", "y"]), "missing-parameter") == []
    assert found(feeding(lambda payload: None, None), "missing-parameter") == []
    assert found(feeding(lambda payload: None, []), "missing-parameter") == ["target"]
    assert found(feeding(lambda payload, **rest: None, ["x"]), "missing-parameter") == ["target"]


def test_entries_and_slots_with_a_merge_function_are_not_judged() -> None:
    flow = Flow("f")
    flow.add_routine(Node(["trigger"], handler=needing_two), "entry")
    assert flow.validate() == []
    merged = feeding(needing_two, ["x"], merge_strategy=lambda old, new: {"value": 1, "unit": 2})
    assert found(merged, "missing-parameter") == []


@given(
    needed=st.sets(st.sampled_from("abcd"), min_size=2),
    events=st.lists(st.none() | st.lists(st.sampled_from("abcd"), unique=True), min_size=1, max_size=3),
)
def test_a_parameter_is_missing_exactly_when_no_single_event_declares_it(needed: set[str], events: Any) -> None:
    scope: dict[str, Any] = {}
    exec(f"def handler({', '.join(sorted(needed))}): ...", scope)
    flow = feeding(scope["handler"], *events)
    missing = needed - {name for params in events for name in ("abcd" if params is None else params)}
    assert found(flow, "missing-parameter") == ["target"] * len(missing)


def test_an_event_without_a_connection_is_found() -> None:
    flow = chain(Source())
    assert only(flow, "unconnected-event") == (
        "flow 'chain': event 'output' of routine 'r0' is connected to no slot, so what it emits goes nowhere; "
        "connect() it, or remove the event"
    )


def test_a_cycle_is_named_in_order_from_its_first_routine() -> None:
    flow = chain(Source(), Sink())
    ring("c", "a", "b", flow=flow)
    assert only(flow, "cycle") == (
        "flow 'chain': routine 'c' is in a cycle: c.output -> a.input, a.output -> b.input, b.output -> c.input; make "
        "sure that a handler in it stops emitting at some point, or remove a connection"
    )


def test_a_routine_connected_to_itself_is_a_cycle() -> None:
    assert "self.output -> self.input" in only(ring("self"), "cycle")


def test_cycles_that_share_routines_are_one_finding_that_shows_the_shortest() -> None:
    flow = ring("a", "b", "c", "d")
    flow.connect("a", "output", "d", "input")
    message = only(flow, "cycle")
    assert "a.output -> d.input, d.output -> a.input (and back to it through b, c as well)" in message


def test_separate_cycles_are_separate_findings() -> None:
    flow = ring("d", "c")
    ring("b", "a", flow=flow)
    flow.connect("c", "output", "a", "input")
    assert found(flow, "cycle") == ["d", "b"]


def test_a_long_cycle_is_shown_in_part() -> None:
    message = only(ring(*(f"r{index}" for index in range(500))), "cycle")
    assert "r11.output -> r12.input and 488 more" in message
    assert "r12.output" not in message


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True))
def test_every_cycle_that_is_named_is_one_and_no_routine_is_on_a_cycle_unnoticed(edges: list[tuple[int, int]]) -> None:
    flow = Flow("f")
    for index in range(6):
        flow.add_routine(Node(events={"output": None}), str(index))
    for left, right in edges:
        flow.connect(str(left), "output", str(right), "input")
    after = {node: {node} & {right for left, right in edges if left == node} for node in range(6)}
    for _ in range(6):  # the transitive closure, the slow way
        for node in range(6):
            after[node] |= {far for left, right in edges if left == node for far in {right} | after[right]}
    groups = {frozenset(other for other in after[node] if node in after[other]) for node in range(6)}
    cycles = [finding for finding in flow.validate() if finding.kind == "cycle"]
    assert [finding.routine_id for finding in cycles] == sorted(str(min(group)) for group in groups if group)
    for finding in cycles:
        path = [(int(left), int(right)) for left, right in re.findall(r"(\d)\.output -> (\d)\.input", str(finding))]
        assert set(path) <= set(edges)
        assert [right for _, right in path] == [left for left, _ in path[1:] + path[:1]]


# --- drawings ---------------------------------------------------------------------------------------------------


def renaming() -> Flow:
    flow = chain(Source(), Sink())
    flow.add_routine(Step(lambda step: None), "other")
    flow.connect("r0", "output", "other", "input", {"data": "value"})
    return flow


def test_mermaid_shows_routines_connections_and_renamed_parameters() -> None:
    assert renaming().to_mermaid() == (
        "flowchart TD\n"
        '    n0["r0<br/>Source"]\n'
        '    n1["r1<br/>Sink"]\n'
        '    n2["other<br/>Step"]\n'
        '    n0 -->|"output -> input"| n1\n'
        '    n0 -->|"output -> input (data as value)"| n2\n'
    )


def test_dot_shows_routines_connections_and_renamed_parameters() -> None:
    assert renaming().to_dot() == (
        'digraph "chain" {\n'
        "    node [shape=box];\n"
        '    n0 [label="r0\\nSource"];\n'
        '    n1 [label="r1\\nSink"];\n'
        '    n2 [label="other\\nStep"];\n'
        '    n0 -> n1 [label="output -> input"];\n'
        '    n0 -> n2 [label="output -> input (data as value)"];\n'
        "}\n"
    )


def test_an_empty_flow_can_be_drawn() -> None:
    assert Flow("f").to_mermaid() == "flowchart TD\n"
    assert Flow("f").to_dot() == 'digraph "f" {\n    node [shape=box];\n}\n'


def visible(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def odd_flow(flow_id: str, ids: list[str]) -> Flow:
    """Return a flow whose ids, slots, events and parameters all have odd names."""
    flow = Flow(flow_id)
    for name in ids:
        flow.add_routine(Node([name], {name: [name]}), name)
    for left, right in pairwise(ids):
        flow.connect(left, left, right, right, {left: right})
    return flow


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_no_name_breaks_a_mermaid_drawing(flow_id: str, ids: list[str]) -> None:
    head, *lines = odd_flow(flow_id, ids).to_mermaid().splitlines()
    assert head == "flowchart TD"
    assert len(lines) == 2 * len(ids) - 1
    for number, (line, name) in enumerate(zip(lines, ids, strict=False)):
        label = re.fullmatch(rf'    n{number}\["((?:#\d+;|[^\W_]|[ ._-])*)<br/>Node"\]', line)
        assert label
        assert unescape(label[1].replace("#", "&#")) == visible(name)
        assert not re.search(r"(?:^|[ ._-])[ ._-]|[ ._-]$", label[1])  # nothing that Markdown reads as a list or bold
    for number, line in enumerate(lines[len(ids) :]):
        part = r"((?:#\d+;|[^\W_]|[ ._-])*)"
        label = re.fullmatch(rf'    n{number} -->\|"{part} -> {part} \({part} as {part}\)"\| n{number + 1}', line)
        assert label
        left, right, old, new = (unescape(each.replace("#", "&#")) for each in label.groups())
        assert (left, right) == (old, new) == (visible(ids[number]), visible(ids[number + 1]))


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_no_name_breaks_a_dot_drawing(flow_id: str, ids: list[str]) -> None:
    def read(text: str) -> str:
        return unescape(re.sub(r'\\([\\"])', r"\1", text))

    part = r'((?:[^"\\]|\\[\\"])*)'
    head, _, *lines, foot = odd_flow(flow_id, ids).to_dot().splitlines()
    assert (foot, len(lines)) == ("}", 2 * len(ids) - 1)
    title = re.fullmatch(rf'digraph "{part}" {{', head)
    assert title
    assert read(title[1]) == visible(flow_id)
    for number, (line, name) in enumerate(zip(lines, ids, strict=False)):
        label = re.fullmatch(rf'    n{number} \[label="{part}\\nNode"\];', line)
        assert label
        assert read(label[1]) == visible(name)
    for number, line in enumerate(lines[len(ids) :]):
        label = re.fullmatch(rf'    n{number} -> n{number + 1} \[label="{part}"\];', line)
        assert label
        left, right = visible(ids[number]), visible(ids[number + 1])
        assert read(label[1]) == f"{left} -> {right} ({left} as {right})"


@given(NAMES)
def test_every_drawing_can_be_written_to_a_file(name: str) -> None:
    flow = odd_flow(name, [name])
    (flow.to_mermaid() + flow.to_dot()).encode()


# --- wiring -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (("r", "output", "r1", "input"), "flow 'chain' has no routine 'r'; did you mean 'r1'? routines: r0, r1"),
        (("r0", "outptu", "r1", "input"), "routine 'r0' has no event 'outptu'; did you mean 'output'? events: output"),
        (("r0", "output", "r1", "inptu"), "routine 'r1' has no slot 'inptu'; did you mean 'input'? slots: input"),
        (("r0", "output", "r1", "input"), "flow 'chain': r0.output -> r1.input is connected already"),
        (([], "output", "r1", "input"), "flow 'chain' has no routine []; routines: r0, r1"),
    ],
)
def test_a_wrong_connection_is_refused_with_what_there_is(ends: Any, message: str) -> None:
    flow = chain(Source(), Sink())
    with pytest.raises(DeclarationError) as caught:
        flow.connect(*ends)
    assert message in str(caught.value)
    assert len(flow.connections) == 1
