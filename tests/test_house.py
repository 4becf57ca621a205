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
# The modules of our own are those that need asyncio, blinker, logging or sqlite3, or that are needed only by durable
# jobs, by states with a schema, or to save and load.
LATE_IMPORTS = {
    "networkx",
    "random",
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
    "routilux.store.reading",
    "routilux.store.sqlite",
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
def test_nothing_is_imported_for_type_checkers_only(module):
    assert "TYPE_CHECKING" not in MODULES[module].read_text()


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


# What comes with RootModel, with the class of a model, and with its first schema.
OF_MODELS = {"annotated_types", "pydantic.fields", "zipfile", "socket", "importlib.metadata"}
SLOW = {"networkx", "asyncio", "logging", "blinker", "sqlite3", *OF_MODELS}


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
