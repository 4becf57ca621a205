"""Run the benchmark: ``python -m benchmarks [--quick]``, in a checkout, with a Python that routilux is installed in.

Prints two tables: what was to be reached and what was, and all medians. With ``--quick``, only whether it runs and the
results are right is of interest. The exit status is 1 when a result was wrong or a peer failed, whatever the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from .environments import BOUNDS, HERE, OWN, PEERS, CannotInstallError, Peer, python_of
from .figures import Figures
from .report import as_json, as_text, behind_of, figures_table, in_words, machine, outcomes_of, page, targets_table
from .rounds import Workers, measure
from .work import WORK


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast routilux and others are.")
    names = ", ".join(peer.name for peer in PEERS[2:])
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that all runs and is right")
    parser.add_argument(
        "--peers", metavar="NAMES", help=f"with commas between; default: all, or none if quick: {names}"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only the work whose name has this in it")
    parser.add_argument("--rounds", type=int, help="default: 5, or 2 if quick")
    parser.add_argument("--limit", type=float, default=10.0, help="spare a peer what takes it longer, in seconds")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".benchmarks", help="where environments are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the tables for the documentation to a file")
    given = parser.parse_args()
    if given.rounds is None:
        given.rounds = 2 if given.quick else 5
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    wanted = [] if given.quick and given.peers is None else [peer.name for peer in PEERS[2:]]
    if given.peers is not None:
        wanted = [name.strip() for name in given.peers.split(",") if name.strip()]
    unknown = set(wanted) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"--peers: no peer {', '.join(sorted(unknown))}; there are: {names}")
    given.peers = [peer for peer in PEERS if peer.name in (OWN, BOUNDS, *wanted)]
    given.work = [work for work in WORK if given.only in work.name]
    if not given.work:
        parser.error(f"--only: no work has {given.only!r} in its name")
    return given


def install(peers: list[Peer], cache: Path) -> dict[Peer, str]:
    """Return the Pythons of the peers that can be installed, and tell of those that can not."""
    pythons = {}
    for peer in peers:
        try:
            pythons[peer] = python_of(peer, cache)
        except CannotInstallError as error:
            tell(f"{peer.name} is left out, as it cannot be installed:\n{error}")
    return pythons


def tell(text: str) -> None:
    """Say how it goes, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print; return the exit status."""
    given = arguments()
    where = machine()
    pythons = install(given.peers, given.cache)
    figures = Figures()
    with Workers(pythons) as shared:
        for work in given.work:
            tell(f"{work.name} ...")
            # Processes of its own for each work, so that none has to do with what another one has left.
            with nullcontext(shared) if given.quick else Workers(pythons) as workers:
                figures.include(measure(work, workers, given.rounds, given.limit, quick=given.quick, tell=tell))
    outcomes = outcomes_of(figures)
    words = in_words(where, given.rounds)
    tables = [targets_table(figures, outcomes), figures_table(figures, list(pythons))]
    if given.quick:
        print("A quick run: whether all runs and is right. Its figures mean nothing.\n")
    print(words, *map(as_text, tables[1:] if given.quick else tables), sep="\n\n")
    if not given.quick:
        print(*["", *behind_of(figures)], sep="\n")
    measured = sum(map(len, figures.rounds.values()))
    print(f"\n{measured:,} figures, {len(figures.problems)} problems", *figures.problems, sep="\n")
    if given.json:
        given.json.write_text(json.dumps(as_json(figures, outcomes, where), indent=1) + "\n", encoding="utf-8")
    if given.rst:
        given.rst.write_text(page(words, figures, *tables) + "\n", encoding="utf-8")
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
