"""Run the programs shown in the documentation and compare what they print with what the page says.

    python .ci/programs.py README.md docs

Takes .md and .rst files, and folders to look for them in. A program is a `python` block whose next block is a
`text` block: its exact output. Each runs in a fresh process of this interpreter, in the current folder, with
warnings as errors. What a person would type is a comment before it: `.. typed: yes`, one for each line. Exit status 0
when all match.
"""

import difflib
import re
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

MARKDOWN = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RST = re.compile(r"^\.\. (?:code-block:: (\w+)\n(?:   +:.*\n)*((?:   .*\n|\n)+)|typed: (.*)\n)", re.MULTILINE)


def programs(page: Path) -> list[tuple[str, str, str]]:
    """Return each program of a page, what is typed into it, and its documented output."""
    pattern = MARKDOWN if page.suffix == ".md" else RST
    found = []
    typed = ""
    for kind, body, *line in pattern.findall(page.read_text(encoding="utf-8").rstrip() + "\n"):
        if kind:
            found.append((kind, textwrap.dedent(body).strip("\n") + "\n", typed))
            typed = ""
        else:
            typed += f"{line[0]}\n"
    return [
        (code, typed, output)
        for (kind, code, typed), (next_kind, output, _) in pairwise(found)
        if (kind, next_kind) == ("python", "text")
    ]


def check(name: str, code: str, typed: str, expected: str) -> bool:
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, input=typed, capture_output=True, encoding="utf-8", timeout=60, check=False)
    good = run.returncode == 0 and not run.stderr and run.stdout == expected
    print(f"{name}: {'as documented' if good else 'DIFFERS'}")
    if not good:
        lines = expected.splitlines(), run.stdout.splitlines()
        print(*difflib.unified_diff(*lines, "documented", "printed", lineterm=""), run.stderr, sep="\n")
    return good


def main(arguments: list[str]) -> int:
    pages: list[Path] = []
    for path in map(Path, arguments):
        pages += sorted([*path.rglob("*.md"), *path.rglob("*.rst")]) if path.is_dir() else [path]
    results = [
        check(f"{page.name}, program {number}", *program)
        for page in pages
        for number, program in enumerate(programs(page), 1)
    ]
    print(f"{results.count(True)} of {len(results)} programs print what is documented")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
