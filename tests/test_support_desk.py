"""The support desk of the examples, as a person uses it: at one terminal, and from two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "support_desk.py"
LONG = 60.0  # seconds; a test that needs them has failed

HELP = "Thank you for asking; please look at our help page."
PAID = "We are sorry, and give you your money back."
REFUSED = "We are sorry, but cannot give your money back."


def desk(*arguments, typed=None):
    """Run the example to its end; return its exit status and the lines that it has printed, in no order."""
    command = [sys.executable, "-W", "error", EXAMPLE, *map(str, arguments)]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=LONG, check=False)
    lines = done.stdout.replace("[y/n] ", "[y/n]\n").splitlines()
    return done.returncode, sorted(lines), done.stderr


def test_a_person_decides_at_the_terminal():
    assert desk(typed="y\nno\n") == (
        0,
        sorted(
            [
                "ticket 2 wants 30 back",
                "ticket 3 wants 30 back",
                "give 30 back to ticket 2? [y/n]",
                "give 30 back to ticket 3? [y/n]",
                f"to ticket 1: {HELP}",
                f"to ticket 2: {PAID}",
                f"to ticket 3: {REFUSED}",
                f"to ticket 4: {HELP}",
                "4 tickets answered: [1, 2, 3, 4]",
            ]
        ),
        "",
    )


def test_no_one_is_asked_when_nothing_costs_money():
    status, lines, errors = desk("Hello?")
    assert (status, lines, errors) == (0, ["1 tickets answered: [1]", f"to ticket 1: {HELP}"], "")


def test_others_decide_from_other_processes(tmp_path):
    database = tmp_path / "desk.db"
    command = [sys.executable, "-u", "-W", "error", EXAMPLE, "--database", database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            lines = []
            while sum("wants" in line for line in lines) < 2:
                line = running.stdout.readline()
                assert line, running.stderr.read()
                lines.append(line.strip())
            assert desk("--database", database, "--refuse", 2) == (0, ["told the desk about ticket 2"], "")
            status, _, errors = desk("--database", database, "--approve", 99)
            assert (status, errors) == (1, "nobody waits for a decision about ticket 99\n")
            assert desk("--database", database, "--approve", 3) == (0, ["told the desk about ticket 3"], "")
            rest, errors = running.communicate(timeout=LONG)
        finally:
            running.kill()
    lines += rest.splitlines()
    assert errors == ""
    assert {f"to ticket 2: {REFUSED}", f"to ticket 3: {PAID}", "4 tickets answered: [1, 2, 3, 4]"} <= set(lines)

    status, _, errors = desk("--database", database, "--approve", 3)
    assert status == 1
    assert "is completed, and nothing more can be sent to its slot 'approval.decision'" in errors


def test_the_desk_goes_on_after_its_process_was_killed(tmp_path):
    database = tmp_path / "desk.db"
    command = [sys.executable, "-u", EXAMPLE, "--database", database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        while "wants" not in (line := running.stdout.readline()):
            assert line
        running.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            for ticket in (2, 3):
                assert desk("--database", database, "--approve", ticket)[0] == 0
            rest, _ = running.communicate(timeout=LONG)
        finally:
            running.kill()
    assert rest.splitlines()[-1] == "4 tickets answered: [1, 2, 3, 4]"


def test_the_desk_closes_when_nobody_answers():
    status, _, errors = desk(typed="")
    assert (status, errors) == (1, "\nnobody answers, and the desk is closed\n")


def test_a_decision_needs_a_database():
    status, _, errors = desk("--approve", 2)
    assert (status, errors.splitlines()[-1]) == (
        2,
        "support_desk.py: error: a decision needs the --database that the desk uses",
    )
