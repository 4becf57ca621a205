"""Measuring: one process per peer and piece of work, asked in turn, round after round."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .environments import HERE, Peer, variables_of
from .figures import Figures
from .work import SECONDS, Work

PATIENCE = 600.0  # seconds after which a peer that does not answer is ended


class Worker:
    """A process of a peer's Python that does one piece of work again and again."""

    def __init__(self, peer: Peer, python: str) -> None:
        self.peer = peer
        # In an empty folder, since Python imports from the one that it is started in.
        self.folder = tempfile.TemporaryDirectory()
        self.complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), str(HERE / "peers" / peer.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            encoding="utf-8",
            cwd=self.folder.name,
            env=variables_of(peer),
        )

    def ask(self, work: Work, size: int, least: float) -> dict[str, Any] | None:
        """Return what one measurement came to, None when the peer cannot do this work; an ``error`` when it failed.

        Short work is repeated for ``least`` seconds.
        """
        request = {"work": work.function, "size": size, "options": dict(work.options), "least": least}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            code = self.process.wait()
            self.complaints.seek(0)
            return {"error": f"the process ended with {code}\n{''.join(self.complaints.readlines()[-20:])}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.complaints.close()
        self.folder.cleanup()


class Workers:
    """A process for each peer that is asked for something."""

    def __init__(self, pythons: Mapping[Peer, str]) -> None:
        self.pythons = pythons
        self.running: dict[Peer, Worker] = {}

    def ask(self, peer: Peer, work: Work, size: int, least: float) -> dict[str, Any] | None:
        """Have a peer measure; see `Worker.ask`."""
        running = self.running.get(peer)
        if running is not None and (work.fresh or running.process.poll() is not None):
            self.running.pop(peer).close()
        if peer not in self.running:
            self.running[peer] = Worker(peer, self.pythons[peer])
        return self.running[peer].ask(work, size, least)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self.running.values():
            worker.close()


def once(work: Work, size: int, answer: dict[str, Any]) -> float:
    """Return how many seconds the work takes when it is done once; short work was repeated."""
    if work.unit != SECONDS:
        return answer["seconds"]
    figures: dict[str, float] = answer["figures"]
    return figures[""] if "" in figures else figures["median"] * work.count(size)


def measure(
    work: Work, workers: Workers, rounds: int, limit: float, *, quick: bool, tell: Callable[[str], None]
) -> Figures:
    """Have all peers do a piece of work at all of its sizes, in turn, in each of so many rounds, or as many more.

    Another package is spared a size that would take it more than ``limit`` seconds, going by the size before. What did
    take it so long, it is asked for once.
    """
    figures = Figures()
    left = {peer: list(work.sizes[:1] if quick else work.sizes) for peer in workers.pythons}
    for number in range(rounds if quick else rounds * work.turns):
        for size in work.sizes:
            for peer in [peer for peer, sizes in left.items() if size in sizes]:
                answer = workers.ask(peer, work, size, 0.0 if quick else work.least)
                problem = figures.add(work, size, peer.name, answer)
                if problem:
                    tell(problem)
                if answer is None or problem:
                    left[peer] = []
                for larger in [each for each in left[peer] if each > size and peer.requirements and number == 0]:
                    expected = once(work, size, answer) * work.count(larger) / work.count(size)
                    if expected > limit:
                        left[peer].remove(larger)
                        figures.spare(work, larger, peer.name, expected)
                if size in left[peer] and peer.requirements and once(work, size, answer) > limit:
                    left[peer].remove(size)
    return figures
