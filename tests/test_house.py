"""The structure of the package: its floors, its doors, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import routilux

PACKAGE = Path(routilux.__file__).parent
FLOORS = [
    {"_late", "errors"},
    {"core", "signals"},
    {"routine", "store"},
    {"graph"},
    {"runtime"},
    {"flow"},
    {"builtin", "cli", "ext", "testing", "workflow"},
]
# The modules of our own are those that need asyncio, blinker, logging, orjson or sqlite3, or that are needed only by
# durable jobs, by states with a schema, by initial states, or to save and load.
LATE_IMPORTS = {
    "networkx",
    "pydantic",
    "pydantic_core",
    "random",
    "routilux.graph.models",
    "routilux.graph.sizes",
    "routilux.runtime.announcing",
    "routilux.runtime.durable_tasks",
    "routilux.runtime.event_loop",
    "routilux.runtime.job_documents",
    "routilux.runtime.keeping",
    "routilux.runtime.logs",
    "routilux.runtime.serving",
    "routilux.runtime.task_calling",
    "routilux.runtime.task_turn",
    "routilux.runtime.typed_faces",
    "routilux.store.files",
    "routilux.store.reading",
    "routilux.store.sqlite",
    "uuid",
}
MODULES = {
    "routilux"
    if file == PACKAGE / "__init__.py"
    else ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def floor_of(module):
    room = module.split(".")[1]
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imports_of(module, file):
    """Yield (imported module, whether the import is inside a function)."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def visit(node, inside):
        for child in ast.iter_child_nodes(node):
            deeper = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, inside
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*above, base]).rstrip(".")
                for alias in child.names:
                    yield (f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base), inside
            else:
                yield from visit(child, deeper)

    yield from visit(ast.parse(file.read_text()), False)


IMPORTS = {module: list(imports_of(module, file)) for module, file in MODULES.items()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_the_floors_and_never_to_the_root(module):
    for target, _ in IMPORTS[module]:
        if module == "routilux" or not target.startswith("routilux"):
            continue
        assert target != "routilux", f"{module} imports the package root"
        assert floor_of(target) <= floor_of(module), f"{module} imports {target}, which is on a higher floor"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_are_at_the_top_but_for_slow_ones(module):
    late = {target for target, inside in IMPORTS[module] if inside}
    assert late <= LATE_IMPORTS


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_imported_for_type_checkers_only_but_names_of_pydantic_in_one_module(module):
    tree = ast.parse(MODULES[module].read_text())
    named = [node for node in ast.walk(tree) if "TYPE_CHECKING" in (getattr(node, "id", ""), getattr(node, "attr", ""))]
    guarded = [node for node in tree.body if isinstance(node, ast.If) and node.test in named]
    assert len(guarded) == len(named) == (module == "routilux.core.models")
    for node in guarded:
        assert [each.module for each in node.body if isinstance(each, ast.ImportFrom)] == ["pydantic"] * len(node.body)


def test_there_are_no_import_cycles():
    done, path = set(), []

    def visit(module):
        assert module not in path, f"import cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        path.append(module)
        for target, _ in IMPORTS[module]:
            if target in MODULES and target != module:
                visit(target)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def test_the_core_knows_no_clock_threads_files_or_chance():
    forbidden = {"time", "datetime", "threading", "asyncio", "os", "io", "pathlib", "random", "secrets", "socket"}
    for module, imported in IMPORTS.items():
        if module.startswith("routilux.core"):
            assert not forbidden & {target.split(".")[0] for target, _ in imported}, module


def test_every_public_name_exists_is_documented_and_is_all_there_is():
    assert len(set(routilux.__all__)) == len(routilux.__all__)
    for name in routilux.__all__:
        assert inspect.getdoc(getattr(routilux, name)), name
    visible = {
        name for name, value in vars(routilux).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert visible == set(routilux.__all__)


def test_the_door_fetches_each_name_from_where_type_checkers_see_it():
    seen, rooms = {}, set()
    for node in ast.walk(ast.parse((PACKAGE / "__init__.pyi").read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname for alias in node.names if alias.asname == alias.name}
            rooms |= names if node.module is None else set()
            seen |= dict.fromkeys(names, f".{node.module}") if node.module is not None else {}
    assert vars(routilux)["_homes"] == seen
    assert vars(routilux)["_rooms"] == rooms
    assert set(routilux.__all__) == seen.keys()
    for name in routilux.__all__:
        value = getattr(routilux, name)
        assert getattr(value, "__module__", None) == f"routilux{seen[name]}", name


def in_a_new_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_name_of_the_door_that_is_called_like_a_module_is_never_that_module():
    code = """
import sys, types
import routilux.workflow, routilux.routine.slot
assert {"Flow", "routine", "workflow"} <= set(dir(routilux)) and "Flow" not in vars(routilux)
from routilux import *
assert workflow is routilux.workflow is sys.modules["routilux.workflow"].workflow
assert routine is routilux.routine is sys.modules["routilux.routine.function"].routine
assert Flow is routilux.Flow and "Flow" in vars(routilux)
"""
    in_a_new_process(code)
    with pytest.raises(AttributeError, match="module 'routilux' has no attribute 'Flows'"):
        routilux.Flows  # noqa: B018


def test_every_public_method_is_documented():
    for name in routilux.__all__:
        owner = getattr(routilux, name)
        for attribute, value in vars(owner).items() if inspect.isclass(owner) else ():
            if attribute.startswith("_"):
                continue
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if callable(function):
                assert inspect.getdoc(function), f"{name}.{attribute}"


SLOW = {"networkx", "asyncio", "logging", "blinker", "sqlite3", "orjson", "pathlib", "pydantic", "pydantic_core"}


def imported_by(code):
    return set(in_a_new_process(f"import sys\n{code}\nprint(*sys.modules)").split())


def test_importing_the_package_imports_none_of_it():
    found = imported_by("import routilux")
    assert {name for name in found if name.startswith("routilux")} == {
        "routilux",
        "routilux.core",
        "routilux._late",
        "routilux.core.version",
    }
    assert "pydantic" not in found


def test_importing_what_programs_begin_with_does_not_import_what_is_slow_and_seldom_needed():
    found = imported_by("from routilux import Engine, Flow, JobStatus, Routine, routine, slot")
    assert not found & (SLOW | LATE_IMPORTS)
    assert not found & {
        "routilux.workflow",
        "routilux.store.values",
        "routilux.store.documents",
        "routilux.store.memory",
    }
    assert not found & {f"routilux.{name}" for name in ("builtin", "signals", "testing")}


# Everything that a flow without types does in memory, for all kinds of values that are plain.
PLAIN_PROGRAM = """
from collections import deque
from routilux import Context, Event, Flow, JobStatus, Routine, slot

class Source(Routine):
    row = Event("item", "more")

    @slot
    def start(self, ctx: Context, items) -> None:
        ctx.state["seen"] = []
        for item in items:
            ctx.state["seen"].append(item["id"])
            self.row.emit(item=item, more=deque([(1, {2})]))
        with ctx.store.edit_state() as state:
            state["table"] = {"rows": [{"n": 1}]}
            state["count"] += len(items)
        ctx.store.set("table.rows.0.n", 2)
        assert ctx.store.get("table.rows.0.n") == 2
        ctx.store.set_state({**ctx.store.get_state(), "set": True})

class Sink(Routine):
    @slot
    def item(self, item, more, ctx: Context):
        item["tags"].append("late")
        ctx.step.run("double", lambda: [item["id"] * 2])
        ctx.finish(item)

flow = Flow("plain", execution_strategy="concurrent")
source, sink = Source(), Sink()
flow.add_routine(source, "source")
flow.add_routine(sink, "sink")
flow.connect(source.row, sink.item)
begun = {"count": 1, "name": "n", "rate": 0.5, "list": [None, {"deep": [True]}]}
job = flow.execute("source", {"items": [{"id": 1, "tags": ["a"]}]}, initial_state=begun)
assert job.status is JobStatus.COMPLETED, job.summary()
assert job.get_shared_data("count") == 2 and job.get_shared_data("table") == {"rows": [{"n": 2}]}
assert job.result == {"id": 1, "tags": ["a", "late"]} and len(job.get_execution_history()) == 2
"""
TYPED = [
    ("a slot", "class R(Routine):\n    @slot\n    def start(self, n: int): pass\nR()"),
    ("an event", "Event(n=int)"),
    ("a function", "@routine\ndef double(n: int) -> int: return n"),
    ("a workflow", "from routilux import workflow"),
]


def test_a_program_without_types_does_not_import_pydantic():
    found = imported_by(PLAIN_PROGRAM)
    assert not found & {"pydantic", "pydantic_core", "routilux.graph.models"}


@pytest.mark.parametrize("declaration", [code for _, code in TYPED], ids=[name for name, _ in TYPED])
def test_the_first_declaration_with_types_imports_pydantic(declaration):
    code = (
        f"from routilux import Event, Flow, Routine, routine, slot\nbefore = 'pydantic' in sys.modules\n{declaration}"
    )
    assert "pydantic" in imported_by(f"{code}\nassert not before")


def test_threads_that_make_the_first_declarations_with_types_meet_no_half_imported_pydantic():
    code = """
import sys, threading
sys.setswitchinterval(1e-5)
from routilux import Event, Flow, PayloadError, Routine, routine
from routilux.core.copying import copy_value
begin, failed = threading.Barrier(8), []
def declare(place):
    begin.wait()
    try:
        if place % 4 == 0:
            from pydantic import BaseModel
            model = type("Model", (BaseModel,), {"__annotations__": {"items": list}})(items=[1])
            copied = copy_value([model])
            assert copied == [model] and copied[0].items is not model.items
            Flow(state_schema=type("State", (BaseModel,), {"__annotations__": {"n": int}, "n": 0}))
        elif place % 4 == 1:
            Event(n=int)
        elif place % 4 == 2:
            flow = Flow()
            flow.add_routine(routine(lambda n: n), "begin")
            assert flow.execute("begin", {"n": {"a": [object()]}}, initial_state={"a": {1, 2}}).status == "completed"
        else:
            class Typed(Routine):
                def __init__(self):
                    self.define_slot("start", lambda n: n)
                    self.define_event("out", {"n": dict[str, list[int]]})
            Typed()
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=declare, args=(place,)) for place in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
"""
    for _ in range(2):
        in_a_new_process(code)


def test_threads_that_begin_with_different_names_do_not_meet_half_imported_modules():
    code = """
import random, sys, threading
sys.setswitchinterval(1e-5)
import routilux
names = [*routilux.__all__, "builtin", "errors", "signals", "testing"]
random.Random(int(sys.argv[1])).shuffle(names)
begin, failed = threading.Barrier(16), []
def fetch(some):
    begin.wait()
    try:
        for name in some:
            getattr(routilux, name)
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=fetch, args=(names[place::16],)) for place in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
"""
    for seed in range(4):
        subprocess.run([sys.executable, "-c", code, str(seed)], check=True, timeout=60)


def test_modules_that_users_are_told_about_can_be_asked_for():
    code = """
import routilux
assert routilux.errors.StateError is routilux.StateError
assert {"Map", "Filter"} <= set(vars(routilux.builtin))
assert {"errors", "signals"} <= set(dir(routilux))
try:
    routilux.flows
except AttributeError as error:
    assert "no attribute 'flows'" in str(error)
else:
    raise AssertionError
"""
    in_a_new_process(code)


def test_a_name_of_the_door_can_be_replaced_like_any_other(monkeypatch):
    other = types.ModuleType("other")
    monkeypatch.setattr(routilux, "workflow", other)
    assert routilux.workflow is other
