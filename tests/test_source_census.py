"""The example that takes a census of Python files: exact numbers on a small tree, the same with any workers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "source_census.py"

TOP = '''\
"""A TODO in a string is no comment."""
# TODO: this one counts
VALUE = "# TODO: and this one does not"  # TODOS neither, but the next one does


def one():  # TODO shorten
    return 1


class Plain:
    def method(self):
        def inner():
            return 2

        return inner

    async def wait(self):
        return lambda: 3
'''

FILES = {
    "top.py": TOP,
    "empty.py": "",
    "notes.txt": "def no(): pass  # TODO\n",
    "pkg/__init__.py": "",
    "pkg/deep/er.py": "def f():\n    pass\n\n\ndef g():\n    pass\n",
    "pkg/warns.py": "def same():\n    return 1 is 1, '\\d'\n",
    "broken/syntax.py": "x = 1\ndef f(:\n",
    "broken/encoding.py": b"name = '\xff'\n",
    "broken/latin.py": "# -*- coding: latin-1 -*-\nname = 'ü'  # TODO: ü\n".encode("latin-1"),
    "site-packages/skipped.py": "def skipped():\n    pass\n",
    "cyrillic/имя.py": "def функция():\n    pass\n",
}

TABLE = """\
folder                    files      lines  functions    classes      TODOs   unparsed
(files at the top)            2         18          4          1          2          0
broken                        3          2          0          0          1          2
cyrillic                      1          2          1          0          0          0
pkg                           3          8          3          0          0          0
total                         9         30          8          1          3          2

The 10 longest functions:
       5 lines  Plain.method  (top.py:11)
       2 lines  функция  (cyrillic/имя.py:1)
       2 lines  f  (pkg/deep/er.py:1)
       2 lines  g  (pkg/deep/er.py:5)
       2 lines  same  (pkg/warns.py:1)
       2 lines  one  (top.py:6)
       2 lines  Plain.method.inner  (top.py:12)
       2 lines  Plain.wait  (top.py:17)

Files that did not parse: 2
  broken/encoding.py: SyntaxError: """


@pytest.fixture(scope="module")
def census():
    spec = importlib.util.spec_from_file_location("source_census", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def split(output: str) -> tuple[str, str]:
    """Return the census and the summary of the job."""
    counted, _, summary = output.rpartition("\n\njob ")
    return counted, "job " + summary


def test_exact_numbers(census, tree, capsys):
    assert census.main([str(tree)]) == 0
    output = capsys.readouterr()
    counted, summary = split(output.out)
    assert counted.startswith(f"Census of {tree}\n\n{TABLE}")
    encoding, syntax = counted.splitlines()[-2:]
    assert "codec can't decode byte 0xff" in encoding
    assert syntax.startswith("  broken/syntax.py: SyntaxError: ")
    assert syntax.endswith("(syntax.py, line 2)")
    assert "of flow source_census: completed" in summary
    assert output.err == ""


def test_the_summary_counts_the_files(census, tree, capsys):
    census.main([str(tree)])
    _, summary = split(capsys.readouterr().out)
    counts = {line.split()[0]: line.split()[1:3] for line in summary.splitlines() if line.startswith("  ")}
    assert counts["walker"] == ["1", "0"]
    assert counts["parser"] == ["9", "2"]
    assert counts["totals"] == ["7", "0"]


@pytest.mark.parametrize("workers", [2, 4, 32])
def test_workers_do_not_change_the_census(census, tree, capsys, workers):
    census.main([str(tree), "--workers", "1"])
    alone, _ = split(capsys.readouterr().out)
    for _ in range(5):
        assert census.main([str(tree), "--workers", str(workers)]) == 0
        together, summary = split(capsys.readouterr().out)
        assert together == alone
        assert "of flow source_census: completed" in summary


def test_the_longest_functions_are_ten_in_a_fixed_order(census, tmp_path, capsys):
    for number in range(30):
        body = "    pass\n" * (number // 3 + 1)
        (tmp_path / f"m{29 - number:02}.py").write_text(f"def f{number}():\n{body}")
    for workers in ("1", "4"):
        assert census.main([str(tmp_path), "--workers", workers]) == 0
        counted, _ = split(capsys.readouterr().out)
        found = [line.split()[2] for line in counted.splitlines() if "  (m" in line]
        assert found == ["f29", "f28", "f27", "f26", "f25", "f24", "f23", "f22", "f21", "f20"]


def test_warnings_about_the_parsed_files_are_not_shown_and_not_errors(census, tree, capsys):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert census.main([str(tree), "--workers", "4"]) == 0
    assert shown == []
    assert "warns.py: " not in capsys.readouterr().out


def test_a_folder_without_python_files(census, tmp_path, capsys):
    assert census.main([str(tmp_path)]) == 0
    counted, summary = split(capsys.readouterr().out)
    assert counted.splitlines()[3].split() == ["total", "0", "0", "0", "0", "0", "0"]
    assert "completed" in summary


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_a_file_that_cannot_be_read_is_reported(census, tmp_path, capsys):
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert census.main([str(tmp_path)]) == 0
    counted, _ = split(capsys.readouterr().out)
    assert "gone.py: FileNotFoundError: " in counted


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
def test_a_file_name_that_is_no_text(census, tmp_path, capsys):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.py")).write_text("def f(): pass\n")
    assert census.main([str(tmp_path)]) == 0
    assert r"f  (odd\xff.py:1)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing", "a_file.py"])
def test_bad_path(census, tmp_path, capsys, name):
    (tmp_path / "a_file.py").write_text("")
    with pytest.raises(SystemExit) as stop:
        census.main([str(tmp_path / name)])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith(f"error: argument path: {str(tmp_path / name)!r} is not a folder\n")


@pytest.mark.parametrize("workers", ["0", "-3", "many", "1000000"])
def test_bad_workers(census, tree, capsys, workers):
    with pytest.raises(SystemExit) as stop:
        census.main([str(tree), "--workers", workers])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "error: argument --workers: " in output.err
    assert workers in output.err.splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "4"])
def test_as_a_program_where_warnings_are_errors(tree, workers):
    command = [sys.executable, "-W", "error", str(EXAMPLE), ".", "--workers", workers]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
        "PYTHONIOENCODING": "ascii",
    }
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, encoding="ascii", timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    counted, summary = split(run.stdout)
    escaped = TABLE.encode("ascii", "backslashreplace").decode()
    assert counted.startswith(f"Census of .\n\n{escaped}")
    assert "of flow source_census: completed" in summary
