"""Take a census of the Python files below a folder: what they define, their longest functions, their TODO comments.

    python examples/source_census.py [PATH] [--workers N]

PATH is the standard library of the running interpreter unless it is given. The census is the same for any number of
workers; in the summary of the job that follows it, the times differ, and the order in which errors are listed.
"""

import argparse
import ast
import io
import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from routilux import DeclarationError, Flow, JobState, Routine

SKIPPED_FOLDERS = {"site-packages", "dist-packages"}
TOP_FILES = "(files at the top)"
COLUMNS = ("files", "lines", "functions", "classes", "TODOs", "unparsed")
LONGEST = 10
PARSING = Lock()  # Python 3.11 counts the depth of trees that are made at the same time together, and fails then


class Function(NamedTuple):
    """A function, and where it is."""

    lines: int
    file: str
    line: int
    name: str


class Walker(Routine):
    """Finds the Python files below a folder."""

    def __init__(self) -> None:
        super().__init__()
        self.define_slot("trigger", handler=self.walk)
        self.define_event("found", ["path", "name"])

    def walk(self, root: Path) -> None:
        """Emit each file with its name as seen from ``root``."""

        def found(path: Path) -> None:
            name = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
            self.emit("found", path=path, name=name)

        # A folder that cannot be listed goes to the parser too, which fails on it: so it is reported like a file.
        for folder, subfolders, files in os.walk(root, onerror=lambda error: found(Path(error.filename))):
            subfolders[:] = sorted(set(subfolders) - SKIPPED_FOLDERS)
            for file in sorted(files):
                if file.endswith(".py"):
                    found(Path(folder, file))


class Parser(Routine):
    """Measures files, ``workers`` at a time. One that cannot be parsed is recorded as failed, and the job goes on."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.define_slot("file", handler=self.measure, concurrency=workers)
        self.define_event("measured", ["name", "counts", "longest"])
        self.set_as_optional()

    def measure(self, path: Path, name: str) -> None:
        """Parse one file; emit its counts and its longest functions."""
        source = path.read_bytes()
        functions, classes = [], 0
        with PARSING:
            tree = ast.parse(source, filename=name)
        for qualified, node in definitions(tree):
            if isinstance(node, ast.ClassDef):
                classes += 1
            else:
                functions.append(Function(node.end_lineno - node.lineno + 1, name, node.lineno, qualified))
        counts = {
            "files": 1,
            "lines": len(source.splitlines()),
            "functions": len(functions),
            "classes": classes,
            "TODOs": count_todos(source),
        }
        self.emit("measured", name=name, counts=counts, longest=longest_of(functions))


class Totals(Routine):
    """Adds up what was measured, in its routine state; it takes one file at a time, so no update can be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.define_slot("measured", handler=self.add)

    def add(self, name: str, counts: dict[str, int], longest: list[Function]) -> None:
        """Add one file. What this costs grows with the number of top-level folders, not with that of the files."""
        context = self.get_execution_context()
        state = context.job_state.get_routine_state(context.routine_id) or {"folders": {}, "longest": []}
        totals = state["folders"].setdefault(top_folder(name), {})
        for column, count in counts.items():
            totals[column] = totals.get(column, 0) + count
        state["longest"] = longest_of(state["longest"] + longest)
        context.job_state.update_routine_state(context.routine_id, state)


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Yield each function and class at any depth with its dotted name, without recursion."""
    nodes: list[tuple[str, ast.AST]] = [("", tree)]
    while nodes:
        prefix, node = nodes.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}.{child.name}" if prefix else child.name
                yield name, child
            nodes.append((name, child))


def count_todos(source: bytes) -> int:
    """Count the comments that say TODO; the same word in a string is none."""
    if b"TODO" not in source:
        return 0
    tokens = tokenize.tokenize(io.BytesIO(source).readline)
    return sum(token.type == tokenize.COMMENT and bool(re.search(r"\bTODO\b", token.string)) for token in tokens)


def longest_of(functions: list[Function]) -> list[Function]:
    """Return the longest few, in an order that does not depend on the one they came in."""
    return sorted(functions, key=lambda each: (-each.lines, each.file, each.line))[:LONGEST]


def top_folder(name: str) -> str:
    """Return the first folder in a file's name."""
    return name.split("/", 1)[0] if "/" in name else TOP_FILES


def build_flow(workers: int) -> Flow:
    """Return the flow: walker -> parser -> totals."""
    strategy = "sequential" if workers == 1 else "concurrent"
    flow = Flow("source_census", execution_strategy=strategy, max_workers=workers)
    flow.add_routine(Walker(), "walker")
    flow.add_routine(Parser(workers), "parser")
    flow.add_routine(Totals(), "totals")
    flow.connect("walker", "found", "parser", "file")
    flow.connect("parser", "measured", "totals", "measured")
    return flow


def report(job_state: JobState) -> str:
    """Return the census that a job has taken, from its record alone."""
    state = job_state.get_routine_state("totals") or {"folders": {}, "longest": []}
    failed = [each for each in job_state.get_execution_history("parser") if each.status == "failed"]
    unparsed = sorted((each.data["name"], f"{each.error.type}: {each.error.message}") for each in failed)
    folders: dict[str, dict[str, int]] = defaultdict(dict, state["folders"])
    for name, _ in unparsed:
        totals = folders[top_folder(name)]
        for column in ("files", "unparsed"):
            totals[column] = totals.get(column, 0) + 1
    lines = table(dict(sorted(folders.items())))
    lines += ["", f"The {LONGEST} longest functions:"]
    lines += [f"  {each.lines:>6,} lines  {each.name}  ({each.file}:{each.line})" for each in state["longest"]]
    lines += ["", f"Files that did not parse: {len(unparsed):,}"]
    lines += [f"  {name}: {reason}" for name, reason in unparsed]
    return "\n".join(lines)


def table(rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the lines of a table of counts, the last one with the totals."""
    total = {column: sum(row.get(column, 0) for row in rows.values()) for column in COLUMNS}
    first = max(map(len, ("folder", *rows))) + 2
    lines = ["folder".ljust(first) + "".join(column.rjust(11) for column in COLUMNS)]
    for name, row in (*rows.items(), ("total", total)):
        lines.append(name.ljust(first) + "".join(f"{row.get(column, 0):>11,}" for column in COLUMNS))
    return lines


def show(text: str) -> None:
    """Print a text; characters that the output has no code for are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def main(argv: Sequence[str] | None = None) -> int:
    """Take the census that the command line asks for, print it, and return the exit status."""
    arguments = argparse.ArgumentParser(description="Take a census of the Python files below a folder.")
    arguments.add_argument("path", nargs="?", default=sysconfig.get_path("stdlib"), help="default: standard library")
    arguments.add_argument("--workers", type=int, default=1, metavar="N", help="how many files to parse at a time")
    options = arguments.parse_args(argv)
    if not os.path.isdir(options.path):
        arguments.error(f"argument path: {options.path!r} is not a folder")
    try:
        flow = build_flow(options.workers)
    except DeclarationError as error:
        arguments.error(f"argument --workers: {error}")
    with flow, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about the code that is parsed
        job_state = flow.execute("walker", {"root": options.path})
    job_state.raise_for_status()
    show(f"Census of {options.path}\n\n{report(job_state)}\n\n{job_state.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
