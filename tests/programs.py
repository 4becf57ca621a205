"""The programs that the documentation shows: found on its pages, run, and compared with what the pages say they print.

    python tests/programs.py README.md docs

A page is a .md or .rst file. It is read into *blocks*, the code blocks in order, each with the *notes* that stand as
comments before it. A ``python`` block is a program; the ``text`` block next to it, if that is the next block, is its
exact output. Any other block has to say in a note why it is neither. From the blocks come the programs of the page,
and complaints about the blocks that would go unchecked.

The notes, in .rst (in .md, they are HTML comments, ``<!-- typed: yes -->``):

    .. typed: yes              what a person types into the next program; one note for each line
    .. masked: \\d+\\.\\d+ s      a regular expression; what it matches in the output may be anything that it matches
    .. not run: a crontab      why the next block is neither a program nor its output

Each program is a file in an empty folder of its own, and runs there in a fresh process of this interpreter with
warnings as errors; several run at a time. The exit status of this script is 0 when all print what is documented.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

AT_A_TIME = 2 * (os.cpu_count() or 1)  # they wait for files and processes as much as they compute
SECONDS = 100

NOTE = re.compile(r"\s*(?:\.\. |<!-- )(typed|masked|not run): (.*?)(?: -->)?\s*")
FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([\w-]*).*")
DIRECTIVE = re.compile(
    r"(\s*)\.\. (code|code-block|sourcecode|literalinclude|parsed-literal|doctest|testcode|prompt|raw)::\s*([\w-]*).*"
)
HEADED = re.compile(r"\s*\.\. [\w:-]+::")


class Block(NamedTuple):
    """A code block: the number of its line, its language, its text, and the notes before it as pairs."""

    line: int
    language: str
    text: str
    notes: list[tuple[str, str]]

    def noted(self, name: str) -> list[str]:
        return [value for each, value in self.notes if each == name]


class Program(NamedTuple):
    """A program of a page: its name, its code, and what it is to be given and to print."""

    name: str
    code: str
    typed: str
    masks: tuple[str, ...]
    output: str


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def markdown_blocks(lines: list[str]) -> Iterator[Block]:
    notes: list[tuple[str, str]] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if note := NOTE.fullmatch(line):
            notes.append(note.groups())
        elif fence := FENCE.fullmatch(line):
            start = number
            while number < len(lines) and lines[number].strip() != fence[2]:
                number += 1
            yield Block(start, fence[3], textwrap.dedent("\n".join(lines[start:number])) + "\n", notes)
            notes = []
            number += 1
        elif line.startswith("    ") and line.strip():
            yield Block(number, "an indented block", line, [])
    if notes:
        yield Block(number, "", "", notes)


def rst_blocks(lines: list[str]) -> Iterator[Block]:
    notes: list[tuple[str, str]] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if note := NOTE.fullmatch(line):
            notes.append(note.groups())
        elif line.lstrip().startswith(">>> "):
            yield Block(number, "a doctest", line, [])
        elif (directive := DIRECTIVE.fullmatch(line)) or (line.rstrip().endswith("::") and not HEADED.match(line)):
            start = number
            while number < len(lines) and (not lines[number].strip() or indent_of(lines[number]) > indent_of(line)):
                number += 1
            body = lines[start:number]
            while body and body[0].strip().startswith(":"):  # options of the directive
                del body[0]
            text = textwrap.dedent("\n".join(body)).strip("\n") + "\n"
            language = "a literal block" if directive is None else directive[3]
            if directive is not None and directive[2] != "code-block":
                language = f"a block of {directive[2]}"
            yield Block(start, language, text, notes)
            notes = []
    if notes:
        yield Block(number, "", "", notes)


def blocks_of(text: str, suffix: str) -> list[Block]:
    """Return the code blocks of a page's text, and one without a language for notes that no block follows."""
    lines = text.splitlines()
    return list(markdown_blocks(lines) if suffix == ".md" else rst_blocks(lines))


def read(text: str, name: str) -> tuple[list[Program], list[str]]:
    """Return the programs of a page, whose name ends in .md or .rst, and complaints about its other blocks."""
    programs: list[Program] = []
    complaints: list[str] = []
    output_of: int | None = None  # the program whose output the next block may be
    for block in blocks_of(text, Path(name).suffix):
        reasons = block.noted("not run")
        what = None
        if not block.language and not block.text:
            what = "there is no block after this note"
        elif block.language == "python":
            if reasons:
                what = "a python block has to be run"
            typed = "".join(f"{line}\n" for line in block.noted("typed"))
            programs.append(Program(f"{name} {len(programs) + 1}", block.text, typed, tuple(block.noted("masked")), ""))
            output_of = len(programs) - 1
        elif len(block.notes) > len(reasons):
            what = "what is typed, or masked, is noted before the program"
        elif block.language == "text" and not reasons and output_of is not None:
            programs[output_of] = programs[output_of]._replace(output=block.text)
            output_of = None
        elif not all(reasons) or not reasons:
            what = (
                f"{block.language or 'no language'}: neither a program, nor the output of one, nor noted as 'not run'"
            )
        elif " " in block.language:
            what = f"{block.language}: write a code-block"
        if what is not None:
            complaints.append(f"{name}:{block.line}: {what}")
    return programs, complaints


def run(program: Program) -> str:
    """Run a program; return how what it prints differs from what is documented, '' if it does not."""
    found = importlib.util.find_spec("routilux")
    assert found is not None
    assert found.origin is not None
    package = str(Path(found.origin).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "program.py").write_text(program.code, encoding="utf-8")
        try:
            ran = subprocess.run(
                [sys.executable, "-W", "error", "program.py"],
                input=program.typed,
                capture_output=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
                encoding="utf-8",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return f"{error}; so far:\n{error.stdout}\n{error.stderr}"
    documented, printed = program.output, ran.stdout
    for mask in program.masks:
        documented, printed = re.sub(mask, "...", documented), re.sub(mask, "...", printed)
    lines = documented.splitlines(), printed.splitlines()
    difference = "\n".join(difflib.unified_diff(*lines, "documented", "printed", lineterm=""))
    if documented != printed or ran.stderr or ran.returncode:
        return f"{difference}\n{ran.stderr}exit status {ran.returncode}"
    return ""


def main(arguments: list[str]) -> int:
    pages: list[Path] = []
    for path in map(Path, arguments):
        pages += sorted([*path.rglob("*.md"), *path.rglob("*.rst")]) if path.is_dir() else [path]
    programs: list[Program] = []
    complaints: list[str] = []
    for page in pages:
        found, more = read(page.read_text(encoding="utf-8"), page.as_posix())
        programs += found
        complaints += more
    print("".join(f"{complaint}\n" for complaint in complaints), end="")
    good = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for program, difference in zip(programs, pool.map(run, programs), strict=True):
            print(f"{program.name}: {'DIFFERS' if difference else 'as documented'}")
            print(difference and f"{difference}\n", end="")
            good += not difference
    print(f"{good} of {len(programs)} programs print what is documented")
    return 0 if programs and good == len(programs) and not complaints else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
