"""The documentation: every code block on every page is run, and every public name is in the reference."""

from __future__ import annotations

import inspect
import operator
import re
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import programs
import pytest

import routilux
from routilux import builtin, signals, testing

ROOT = Path(__file__).parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(page for page in sorted((ROOT / "docs").rglob("*.*")) if page.suffix in (".md", ".rst")),
    ]
    if "_build" not in page.parts
}
PROGRAMS = {program.name: program for name, text in PAGES.items() for program in programs.read(text, name)[0]}


# --- the programs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def differences(request):
    """What is different, by the names of the programs that were chosen: a future for each, as several run at a time."""
    parameters = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    chosen = [each["program"] for each in parameters if "program" in each]
    pool = ThreadPoolExecutor(programs.AT_A_TIME)
    yield {name: pool.submit(programs.run, PROGRAMS[name]) for name in chosen}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_its_page_says(program, differences):
    difference = differences[program].result()
    assert not difference, f"{program}\n{difference}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_a_program_its_output_or_says_why_not(page):
    assert programs.read(PAGES[page], page)[1] == []


def test_the_commands_of_the_readme_are_those_that_the_checks_run():
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    marked = re.findall(r"^<!-- ([\w-]+-command) -->\n<!-- not run: \.ci/run does", PAGES["README.md"], re.MULTILINE)
    assert sorted(marked) == sorted(re.findall(r"^run_readme_command ([\w-]+)$", checks, re.MULTILINE))
    assert len(marked) == PAGES["README.md"].count("\n```sh\n")


# --- how pages are read ---------------------------------------------------------------------------------------------


def read(text, name="page.rst"):
    found, complaints = programs.read(textwrap.dedent(text), name)
    return [(each.code, each.output) for each in found], complaints


def test_an_rst_program_is_followed_by_its_output():
    text = """\
    Title

    .. code-block:: python
       :caption: some words

       if 1:

           print(2)

    .. note::

       .. code-block:: text

          2

    .. code-block:: python

       pass
    """
    assert read(text) == ([("if 1:\n\n    print(2)\n", "2\n"), ("pass\n", "")], [])


def test_a_markdown_program_is_followed_by_its_output():
    text = "words\n\n```python\nprint('#')\n```\n\n```text\n#\n```\n\n<!-- not run: a file -->\n```toml\na = 1\n```\n"
    assert read(text, "page.md") == ([("print('#')\n", "#\n")], [])


def test_notes_tell_what_is_typed_and_what_may_differ():
    text = ".. typed: yes\n.. typed: no\n.. masked: [0-9]+ s\n.. code-block:: python\n\n   pass\n"
    ((program,), complaints) = programs.read(text, "page.rst")
    assert (program.typed, program.masks, complaints) == ("yes\nno\n", ("[0-9]+ s",), [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (".. not run: too long\n.. code-block:: python\n\n   pass\n", "a python block has to be run"),
        (".. code-block:: text\n\n   2\n", "text: neither a program"),
        (".. code-block:: python\n\n   1\n\n.. code-block:: text\n\n   1\n\n.. code-block:: text\n\n   2\n", "text: "),
        (".. code-block:: sh\n\n   ls\n", "sh: neither a program"),
        (".. not run: \n.. code-block:: sh\n\n   ls\n", "sh: neither a program"),
        (".. typed: yes\n.. not run: why\n.. code-block:: sh\n\n   ls\n", "before the program"),
        (".. code-block::\n\n   ls\n", "no language: "),
        ("So::\n\n   ls\n", "a literal block: "),
        (".. not run: why\n\nSo::\n\n   ls\n", "write a code-block"),
        (".. literalinclude:: program.py\n", "a block of literalinclude: "),
        (".. code:: python\n\n   pass\n", "a block of code: "),
        ("And\n\n>>> 1\n1\n", "a doctest: "),
        (".. typed: yes\n", "no block after this note"),
    ],
)
def test_a_block_of_an_rst_page_that_would_go_unchecked_is_complained_about(text, complaint):
    (found,) = read(text)[1]
    assert found.startswith("page.rst:")
    assert complaint in found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- not run: too long -->\n```python\npass\n```\n", "a python block has to be run"),
        ("```\npass\n```\n", "no language: "),
        ("~~~sh\nls\n~~~\n", "sh: neither a program"),
        ("- So:\n\n  ```sh\n  ls\n  ```\n", "sh: neither a program"),
        ("So:\n\n    ls\n", "an indented block: "),
        ("<!-- typed: yes -->\n", "no block after this note"),
    ],
)
def test_a_block_of_a_markdown_page_that_would_go_unchecked_is_complained_about(text, complaint):
    (found,) = read(text, "page.md")[1]
    assert found.startswith("page.md:")
    assert complaint in found


# --- how programs are run -------------------------------------------------------------------------------------------


def run(code, output, typed="", masks=()):
    return programs.run(programs.Program("program", code, typed, masks, output))


@pytest.mark.parametrize(
    ("code", "output", "typed", "masks"),
    [
        ("print('2.5 s')", "2.5 s\n", "", ()),
        ("print('2.5 s')", "1.75 s\n", "", (r"\d+\.\d+ s",)),
        ("print(input())", "yes\n", "yes\n", ()),
        ("import os; print(os.listdir())", "['program.py']\n", "", ()),
        ("pass", "", "", ()),
    ],
)
def test_a_program_that_prints_what_is_documented_does_not_differ(code, output, typed, masks):
    assert run(code, output, typed, masks) == ""


@pytest.mark.parametrize(
    ("code", "output", "difference"),
    [
        ("print(1)", "2\n", "-2\n+1"),
        ("print(1)", "", "+1"),
        ("print(1, end='')", "1\n", "exit status 0"),
        ("print(1); raise SystemExit(3)", "1\n", "exit status 3"),
        ("import warnings; warnings.warn('old')", "", "UserWarning: old"),
        ("import sys; print('oh', file=sys.stderr)", "", "oh"),
    ],
)
def test_a_program_that_prints_something_else_differs(code, output, difference):
    assert difference in run(code, output)


# --- the reference --------------------------------------------------------------------------------------------------

DIRECTIVE = re.compile(r"^\.\. auto(?:class|data|exception|function):: (?:routilux\.)?([\w.]+)\n((?:   :.*\n)*)", re.M)
SHOWN = {
    name: options
    for page, text in PAGES.items()
    if page.startswith("docs/reference/")
    for name, options in DIRECTIVE.findall(text)
}
PUBLIC = [
    *routilux.__all__,
    *(f"builtin.{name}" for name in builtin.__all__),
    *(f"signals.{name}" for name in signals.__all__),
    *(f"testing.{name}" for name in testing.__all__),
]
# Public methods for other rooms of the package only: the reference leaves them out.
INSIDE = {
    "Engine": {"attach", "count_given_up_helper", "event_loop", "job_here", "release"},
    "Flow": {"changing", "entry_slot", "invocation", "known_types", "learn_types", "plan"},
    "Invocable": {"invocation"},
    "Slot": {"checked", "of"},
    "WorkflowState": {"model_config"},
}


def found(name):
    return operator.attrgetter(name)(routilux)


def is_method(value):
    return isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)


def test_the_reference_shows_every_public_name_once():
    text = "".join(text for page, text in PAGES.items() if page.startswith("docs/reference/"))
    assert sorted(name for name, _ in DIRECTIVE.findall(text)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_without_code_that_is_not_run(name):
    """Of its own: a class is not told by the docstring of its base."""
    value = found(name)
    members = vars(value).values() if inspect.isclass(value) else []
    own = vars(value)["__doc__"] if inspect.isclass(value) else value.__doc__
    assert own
    for docstring in [own, *(inspect.getdoc(each) for each in members if is_method(each))]:
        assert programs.blocks_of(inspect.cleandoc(docstring or ""), ".rst") == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(found(name))])
def test_the_reference_shows_every_public_method_of_a_class_with_a_docstring(name):
    kind, options = found(name), SHOWN[name]
    shown = {found(each) for each in PUBLIC}
    excluded = re.search(r":exclude-members: (.*)", options)
    assert set(excluded[1].split(", ") if excluded else []) == INSIDE.get(name, set())
    for attribute in dir(kind):
        owner = next((each for each in kind.__mro__ if attribute in vars(each)), object)
        if attribute.startswith("_") or not owner.__module__.startswith("routilux") or name.startswith("testing."):
            continue
        value = vars(owner)[attribute]
        if is_method(value):
            assert inspect.getdoc(value), f"{name}.{attribute}"
        if attribute not in INSIDE.get(name, ()) and owner not in shown - {kind}:
            needed = ":members:" if owner is kind else ":inherited-members:"
            fields = issubclass(kind, tuple) and attribute in getattr(kind, "_fields", ())
            assert needed in options or fields, f"{name}.{attribute} of {owner.__name__}"


def test_every_error_says_what_happened_why_and_what_to_do():
    page = PAGES["docs/reference/errors.rst"]
    kinds = {name: found(name) for name in routilux.__all__}
    errors = [name for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, BaseException)]
    assert errors
    for name in errors:
        section = re.search(rf"^{name}\n-+\n\n\.\. autoexception:: {name}\n(.*?)(?=^\w+\n-+\n|\Z)", page, re.M | re.S)
        assert section, name
        for part in (":What happened: ", ":Why: ", ":What to do: "):
            assert f"\n{part}" in section[1], f"{name}: {part}"
