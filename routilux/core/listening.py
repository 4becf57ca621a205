"""Whether anybody listens to everything that happens in jobs, at hand for those who would have to tell it."""

from __future__ import annotations


class Listening:
    """``everything``: whoever it is about hears of everything."""

    __slots__ = ("everything",)

    def __init__(self, *, everything: bool = False) -> None:
        self.everything = everything


listening = Listening()  # to all jobs: a receiver is connected to one of the signals at least
always = Listening(everything=True)  # to a job that is streamed, whether or not there are receivers
