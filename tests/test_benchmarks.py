"""The benchmark's own parts: its tables fit each other, its arithmetic, and how peers are asked. No speed."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace

import pytest

from benchmarks import timing
from benchmarks.environments import BOUNDS, HERE, OWN, PEERS, Peer
from benchmarks.figures import Figures, Key
from benchmarks.report import amount, as_rst, as_text, behind_of, figures_table, outcomes_of, targets_table
from benchmarks.rounds import Worker, measure
from benchmarks.targets import TARGETS, Figure, Target, judge, slower
from benchmarks.work import WORK, Work

OTHER = Peer("other", "other.py", ("other==1",))
SUM = Work("sum", "add_up", (10, 100, 1000), "numbers", "number", "Numbers are added up.")


def functions_of(peer):
    tree = ast.parse((HERE / "peers" / peer.file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def figures_of(**rounds):
    """Return figures of the work `SUM` at its first size, by peer."""
    figures = Figures()
    for peer, values in rounds.items():
        for value in values:
            assert figures.add(SUM, 10, peer, {"figures": {"": value * 10}, "result": 10}) is None
    return figures


# --- the tables -------------------------------------------------------------------------------------------------------


def test_this_project_does_all_work_but_bare_calls():
    assert {work.function for work in WORK} - functions_of(PEERS[0]) == {"calls"}
    assert [peer.name for peer in PEERS[:2]] == [OWN, BOUNDS]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_work_to_do_and_is_pinned(peer):
    assert functions_of(peer) & {work.function for work in WORK}
    assert all("==" in requirement for requirement in peer.requirements)
    assert bool(peer.requirements) == (peer.name not in (OWN, BOUNDS))


def test_names_of_work_are_unique_and_sizes_grow():
    names = [work.name for work in WORK]
    assert len(set(names)) == len(names)
    for work in WORK:
        assert list(work.sizes) == sorted(set(work.sizes)), work.name
        assert len(work.sizes) == (1 if work.size == "process" else 3), work.name


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.what)
def test_a_target_is_made_of_figures_that_are_measured(target):
    by_name = {work.name: work for work in WORK}
    named = {"median", "99th percentile"}
    assert (target.most is None) != (target.least is None)
    for figure in (*target.above, *target.below):
        name, _, suffix = figure.row.partition(", ")
        work = by_name.get(figure.row) or (by_name[name] if suffix in named else None)
        assert work is not None, figure
        peer = next(peer for peer in PEERS if peer.name == figure.peer)
        assert work.function in functions_of(peer)
        assert set(work.sizes) >= ({figure.size} if figure.size else set(target.sizes))


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_a_figure_is_for_one_unit_unless_it_has_a_name():
    figures = Figures()
    figures.add(SUM, 100, OWN, {"figures": {"": 50.0, "median": 0.25}, "result": 100})
    assert figures.median(Key("sum", 100, OWN)) == 0.5
    assert figures.median(Key("sum, median", 100, OWN)) == 0.25
    assert figures.median(Key("sum", 10, OWN)) is None


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    figures = figures_of(routilux=[1.0, 10.0, 2.0], other=[3.0, 20.0, 8.0])
    own, other = Key("sum", 10, OWN), Key("sum", 10, "other")
    assert figures.ratio([other], [own]) == 3.0
    assert figures.ratio([own]) == 2.0
    assert figures.ratio([other, other], [own, own]) == 9.0
    assert figures.ratio([other], [own._replace(size=100)]) is None


def test_a_wrong_result_is_a_problem_and_no_figure():
    figures = Figures()
    assert "came to 9 instead of 10" in figures.add(SUM, 10, OWN, {"figures": {"": 1.0}, "result": 9})
    assert "boom" in figures.add(SUM, 10, OWN, {"error": "boom"})
    assert not figures.rounds
    assert len(figures.problems) == 2


def test_a_target_is_met_up_to_its_bound_and_taken_at_the_first_size_that_was_measured():
    figures = figures_of(routilux=[1.0], other=[4.0])
    faster = Target("faster", (Figure("sum", "other"),), (Figure("sum"),), least=4, sizes=(1000, 10))
    assert judge(figures, faster)[1:] == (10, 1.0, 4.0, True)
    assert judge(figures_of(routilux=[1.0], other=[3.9]), faster).met is False
    small = Target("small", (Figure("sum", size=10),), most=1)
    assert judge(figures, small)[1:] == (10, 1.0, 1.0, True)
    assert judge(figures_of(routilux=[1.1]), small).met is False
    assert judge(figures_of(other=[1.0]), small)[1:] == (None, None, None, None)


def test_a_peer_that_is_faster_is_told_but_for_the_bounds():
    figures = figures_of(routilux=[2.0], bounds=[0.1], other=[1.0], another=[1.95])
    assert list(slower(figures)) == [(Key("sum", 10, "other"), 0.5)]
    assert behind_of(figures) == ["sum, 10 numbers: other takes 0.50 of our time"]
    assert targets_table(figures, outcomes_of(figures))[-1][-1] == "NO"


def test_tables_show_medians_ratios_what_was_spared_and_what_cannot_be_done():
    figures = figures_of(routilux=[2e-6], other=[3e-3])
    figures.add(SUM, 100, OWN, {"figures": {"": 1e-4}, "result": 100})
    figures.spare(SUM, 100, "other", 90.0)
    table = figures_table(figures, [PEERS[0], PEERS[1], OTHER])
    assert table[1:] == [
        ["sum", "10 numbers", "number", "2.00 µs", "-", "3.00 ms (1,500x)"],
        ["sum", "100 numbers", "number", "1.00 µs", "-", "(about 90.0 s)"],
    ]
    assert as_text(table).count("\n") == 3
    assert as_rst(table).count("   * - ") == 3


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234.5, "s", "1,234 s"),
        (0.25, "s", "250 ms"),
        (9.99e-10, "s", "1.00 ns"),
        (4e6, "B", "4.00 MB"),
        (0, "B", "0.00 B"),
    ],
)
def test_amounts_have_the_unit_that_suits_them(value, unit, text):
    assert amount(value, unit) == text


# --- asking the peers -------------------------------------------------------------------------------------------------


class Told:
    """Workers that answer at once; what they were asked is kept."""

    def __init__(self, *answers):
        self.pythons = {PEERS[0]: "", OTHER: ""}
        self.asked = []
        self.answers = dict(answers)

    def ask(self, peer, work, size, least):
        self.asked.append((peer.name, size))
        return self.answers.get(peer.name, {"figures": {"": 1.0}, "result": size, "seconds": 9.0})


def asked(told, limit=1000.0, quick=False, rounds=2):
    found = measure(SUM, told, rounds, limit, quick=quick, tell=lambda text: None)
    return told.asked, found


def test_peers_take_turns_at_each_size_in_each_round():
    turns, figures = asked(Told())
    once = [(name, size) for size in SUM.sizes for name in (OWN, "other")]
    assert turns == once * 2
    assert all(len(rounds) == 2 for rounds in figures.rounds.values())


@pytest.mark.parametrize(("quick", "rounds"), [(False, 6), (True, 2)])
def test_work_may_have_more_rounds_than_others(quick, rounds):
    figures = measure(replace(SUM, turns=3), Told(), 2, 1000.0, quick=quick, tell=lambda text: None)
    assert {len(each) for each in figures.rounds.values()} == {rounds}


def test_a_quick_run_does_the_smallest_size_only():
    assert asked(Told(), quick=True)[0] == [(OWN, 10), ("other", 10)] * 2


def test_a_peer_that_cannot_do_the_work_or_fails_is_not_asked_again():
    assert asked(Told(("other", None)))[0].count(("other", 10)) == 1
    turns, figures = asked(Told(("other", {"error": "boom"})))
    assert [turn for turn in turns if turn[0] == "other"] == [("other", 10)]
    assert len(figures.problems) == 1


def test_another_package_is_spared_what_would_take_it_too_long():
    turns, figures = asked(Told(), limit=50.0)
    assert {size for name, size in turns if name == "other"} == {10, 100}
    assert {size for name, size in turns if name == OWN} == {10, 100, 1000}
    assert figures.spared == {Key("sum", 1000, "other"): 100.0}
    slow = {"figures": {"median": 1.0}, "result": 10, "seconds": 9.0}  # of each
    turns, figures = asked(Told(("other", slow)), limit=50.0)
    assert figures.spared[Key("sum", 100, "other")] == 100.0


def test_another_package_is_asked_once_for_what_took_it_too_long():
    turns, figures = asked(Told(), limit=0.5)
    assert [turn for turn in turns if turn[0] == "other"] == [("other", 10)]
    assert figures.median(Key("sum", 10, "other")) == 0.1
    assert [turn for turn in turns if turn[0] == OWN] == [(OWN, 10), (OWN, 100), (OWN, 1000)] * 2


@pytest.mark.parametrize(
    ("least", "runs", "mean"), [(0.0, 1, 1.0), (0.5, 1, 1.0), (2.5, 2, 1.5), (3.0, 2, 1.5), (9.9, 4, 2.5)]
)
def test_short_work_is_repeated_until_the_time_is_up_and_the_mean_of_all_runs_counts(monkeypatch, least, runs, mean):
    now, done = [100.0], []

    def run():  # takes a second longer each time
        done.append(len(done) + 1)
        now[0] += done[-1]
        return done[-1]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "least", least)
    assert timing.repeated(run) == (mean, runs)


@pytest.mark.parametrize(
    ("least", "median", "worst"), [(0.0, 50.5, 99.0), (5050.0, 50.5, 99.0), (5051.0, 100.5, 198.0)]
)
def test_percentiles_are_of_all_runs_and_the_result_is_of_the_last_so_many(monkeypatch, least, median, worst):
    now, done = [0.0], []

    def measure():  # takes a second longer each time
        done.append(len(done) + 1.0)
        now[0] += done[-1]
        return done[-1], 1

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "least", least)
    assert timing.spread(measure, 100) == ({"median": median, "99th percentile": worst}, 100)


def test_a_worker_answers_one_request_after_the_other_whatever_the_peer_prints(tmp_path):
    path = tmp_path / "json.py"  # a name that the standard library has, too
    path.write_text(
        "import os\n"
        "print('hello')\n"
        "def add_up(size, extra=0):\n"
        "    print('working')\n"
        "    if size == 100:\n"
        "        raise ValueError('boom')\n"
        "    if size == 1000:\n"
        "        os._exit(3)\n"
        "    return 0.5, size + extra\n"
    )
    worker = Worker(Peer("other", str(path)), sys.executable)
    try:
        answer = worker.ask(SUM, 10, 0.0)
        assert answer.pop("seconds") >= 0.0
        assert answer == {"figures": {"": 0.5}, "result": 10}
        assert "ValueError: boom" in worker.ask(SUM, 100, 0.0)["error"]
        assert worker.ask(WORK[0], 10, 0.0) is None
        assert "ended with 3" in worker.ask(SUM, 1000, 0.0)["error"]
        assert "ended with 3" in worker.ask(SUM, 10, 0.0)["error"]
    finally:
        worker.close()
