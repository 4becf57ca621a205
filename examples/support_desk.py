"""A support desk: drafts from a slow model, decisions by a person, replies as they leave, and a report at the end.

    python examples/support_desk.py                     answers sample messages; asks you about refunds
    python examples/support_desk.py "Hello?" "Broken!"  answers these messages

With a database, the job outlives the program, and somebody else can decide, in another terminal:

    python examples/support_desk.py --database desk.db
    python examples/support_desk.py --database desk.db --approve 2
    python examples/support_desk.py --database desk.db --refuse 3

Messages fan out to a coroutine handler, which asks the model about several at a time. A router tells answers that cost
money from those that do not. For the former, a join by ticket waits for the draft and for the decision, which comes
from outside. A second join waits for all replies, and ends the job with a report.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from typing import Annotated, Any

from routilux import (
    Context,
    Engine,
    Event,
    ExecutionError,
    Fact,
    Flow,
    JobState,
    Lagged,
    Resource,
    Routine,
    open_store,
    slot,
)
from routilux.builtin import Router

MESSAGES = [
    "How do I change my password?",
    "The lamp arrived broken, I want my money back.",
    "Please refund my second order, it never came.",
    "Do you ship to Norway?",
]
JOB = "support-desk"


class Model:
    """Stands in for a language model: slow, and good enough for a demonstration."""

    async def answer(self, text: str) -> tuple[str, int]:
        """Return a reply, and how much money it gives back."""
        await asyncio.sleep(0.1)
        if "refund" in text or "money back" in text:
            return "We are sorry, and give you your money back.", 30
        return "Thank you for asking; please look at our help page.", 0


class Desk(Routine):
    """Takes messages in and gives each a ticket."""

    message = Event(ticket=int, text=str)

    @slot
    def trigger(self, messages: list[str]) -> None:
        for ticket, text in enumerate(messages, 1):
            self.message.emit(ticket=ticket, text=text)


class Drafter(Routine):
    """Has the model draft replies, several at a time."""

    draft = Event(ticket=int, text=str, refund=int)

    @slot(concurrency=8)
    async def input(self, ticket: int, text: str, model: Annotated[Model, Resource(Model)]) -> None:
        reply, refund = await model.answer(text)
        self.draft.emit(ticket=ticket, text=reply, refund=refund)


class Approval(Routine):
    """Asks a person, and waits for what they say."""

    decided = Event(ticket=int, text=str)

    @slot
    def draft(self, ticket: int, text: str, refund: int) -> None:
        self.send_output("question", ticket=ticket, text=text, refund=refund)

    @slot(gather="sources", key="ticket", rest="drop", external=True)
    def decision(self, ticket: int, text: str, approved: bool) -> None:
        self.decided.emit(ticket=ticket, text=text if approved else "We are sorry, but cannot give your money back.")


class Mailer(Routine):
    """Sends replies out."""

    sent = Event(ticket=int)

    @slot
    def input(self, ticket: int, text: str) -> None:
        self.send_output("reply", ticket=ticket, text=text)
        self.sent.emit(ticket=ticket)


class Report(Routine):
    """Ends the job when all tickets are answered."""

    @slot(gather="all")
    def input(self, ticket: list[int], ctx: Context) -> None:
        ctx.finish(f"{len(ticket)} tickets answered: {sorted(ticket)}")


def make_flow(engine: Engine | None = None) -> Flow:
    """Return the flow of the support desk."""
    flow = Flow("support desk", engine=engine)
    desk, drafter, approval, mailer, report = Desk(), Drafter(), Approval(), Mailer(), Report()
    costs = Router([(lambda refund: refund > 0, "costly")], of="refund", default="free")
    for routine_id, routine in {
        "desk": desk,
        "drafter": drafter,
        "costs": costs,
        "approval": approval,
        "mailer": mailer,
        "report": report,
    }.items():
        flow.add_routine(routine, routine_id)
    flow.connect(desk.message, drafter.input)
    flow.connect(drafter.draft, costs.input)
    flow.connect(costs.events["costly"], approval.draft)
    flow.connect(costs.events["costly"], approval.decision)
    flow.connect(costs.events["free"], mailer.input)
    flow.connect(approval.decided, mailer.input)
    flow.connect(mailer.sent, report.input)
    return flow


def run(flow: Flow, messages: list[str], *, ask: bool) -> None:
    """Answer messages, and show what happens. With ``ask``, questions are asked here; else somebody else decides."""
    stream = flow.stream("desk", {"messages": messages}, job_id=None if ask else JOB, until_ended=True)
    job_state = stream.job_state
    answered: set[int] = set()  # also those whose answers are still on their way

    def attend() -> None:
        questions = [question for question in open_questions(job_state) if question["ticket"] not in answered]
        for question in questions if ask else ():
            approved, ticket = asked(question), question["ticket"]
            flow.send(job_state, "approval", "decision", ticket=ticket, approved=approved)
            answered.add(ticket)
        if not questions:
            flow.close_input(job_state, "approval", "decision")

    if job_state.status == "waiting":  # since another process ran it
        attend()
    for fact in stream:
        show(fact)
        if isinstance(fact, Fact) and fact.kind == "job_waiting":
            attend()
    job_state.raise_for_status()
    print(job_state.result)


def show(fact: Fact | Lagged) -> None:
    """Print what is of interest to a person."""
    if isinstance(fact, Lagged):
        print(f"({fact.missed} facts were missed)")
    elif fact.output is not None:
        text = (
            "to ticket {ticket}: {text}"
            if fact.output.output_type == "reply"
            else "ticket {ticket} wants {refund} back"
        )
        print(text.format_map(fact.output.data), flush=True)


def open_questions(job_state: JobState) -> list[dict[str, Any]]:
    """Return the questions about which nobody has decided yet."""
    decided = [
        record.data["ticket"] for record in job_state.get_execution_history("approval") if record.slot == "decision"
    ]
    questions = [output.data for output in job_state.outputs if output.output_type == "question"]
    return [question for question in questions if question["ticket"] not in decided]


def asked(question: dict[str, Any]) -> bool:
    """Ask the person at the terminal."""
    return input("give {refund} back to ticket {ticket}? [y/n] ".format_map(question)).lower().startswith("y")


def decide(flow: Flow, engine: Engine, ticket: int, *, approved: bool) -> None:
    """Tell the job, which another process runs, what was decided."""
    job_state = engine.get(JOB)
    if not job_state.status.ended and ticket not in [each["ticket"] for each in open_questions(job_state)]:
        raise ExecutionError(f"nobody waits for a decision about ticket {ticket}")
    flow.send(job_state, "approval", "decision", ticket=ticket, approved=approved)
    print(f"told the desk about ticket {ticket}")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A support desk with a person in the loop.")
    parser.add_argument("messages", nargs="*", help="what customers have written (default: some samples)")
    parser.add_argument("--database", metavar="FILE", help="keep the job in this SQLite file; others decide")
    parser.add_argument("--approve", metavar="TICKET", type=int, help="approve the refund of a ticket")
    parser.add_argument("--refuse", metavar="TICKET", type=int, help="refuse the refund of a ticket")
    given = parser.parse_args()
    messages = given.messages or MESSAGES
    ticket = given.approve if given.approve is not None else given.refuse
    if given.database is None:
        if ticket is not None:
            parser.error("a decision needs the --database that the desk uses")
        try:
            with make_flow() as flow:
                run(flow, messages, ask=True)
        except EOFError:
            parser.exit(1, "\nnobody answers, and the desk is closed\n")
        return
    with Engine(store=open_store(f"sqlite:///{given.database}")) as engine:
        flow = make_flow(engine)
        try:
            if ticket is not None:
                decide(flow, engine, ticket, approved=given.approve is not None)
                return
            stop = threading.Event()
            serving = threading.Thread(target=engine.serve, args=(stop,))
            serving.start()
            try:
                run(flow, messages, ask=False)
            finally:
                stop.set()
                serving.join()
        except ExecutionError as error:
            parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
