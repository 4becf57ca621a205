"""Tests of heads and of removing jobs."""

from __future__ import annotations

from ..errors import StoreError
from .parts import StoreTests, begin, head_in, head_of, refused


class ListingTests(StoreTests):
    """Tests of heads and prune."""

    def test_heads_come_by_the_time_at_which_their_jobs_were_made_then_by_id(self) -> None:
        with self.opened() as store:
            assert store.heads() == []
            for job_id, created in (("d", 2.0), ("a", 3.0), ("c", 1.0), ("b", 2.0)):
                begin(store, job_id, created=created, updated=9.0 - created)
            assert [head.job_id for head in store.heads()] == ["c", "b", "d", "a"]

    def test_heads_are_those_that_fit(self) -> None:
        with self.opened() as store:
            jobs = [("a", "f", "running"), ("b", "f", "waiting"), ("c", "g", "running"), ("d", "g", "completed")]
            for job_id, flow_id, status in jobs:
                begin(store, job_id, flow_id=flow_id, status=status)

            def found(**query: object) -> str:
                return "".join(head.job_id for head in store.heads(**query))  # type: ignore[arg-type]

            assert found() == "abcd"
            assert (found(job_id="b"), found(job_id="x")) == ("b", "")
            assert (found(flow_id="g"), found(flow_id="x")) == ("cd", "")
            assert found(statuses=["waiting"]) == "b"
            assert found(statuses=(status for status in ("running", "completed", "x"))) == "acd"
            assert found(statuses=[]) == ""
            assert found(flow_id="f", statuses=["running", "completed"]) == "a"
            assert found(job_id="a", flow_id="g") == ""
            assert found(job_id="c", flow_id="g", statuses={"running"}) == "c"

    def test_a_head_is_found_by_what_it_is_now(self) -> None:
        with self.opened() as store:
            begin(store)
            store.append("job", 1, [b"2"], 0, head_of("job", flow_id="other", status="completed"))
            assert store.heads(statuses=["running"]) == store.heads(flow_id="flow") == []
            assert store.heads(statuses=["completed"]) == store.heads(flow_id="other") == [head_in(store)]

    def test_jobs_are_removed_by_status_and_age(self) -> None:
        with self.opened() as store:
            for job_id, status, updated in (
                ("old", "completed", 1.0),
                ("edge", "completed", 5.0),
                ("new", "completed", 9.0),
                ("failed", "failed", 1.0),
                ("running", "running", 1.0),
            ):
                begin(store, job_id, status=status, updated=updated)
            assert store.prune(["completed"], 5.0) == 1
            assert store.prune([], 100.0) == 0
            assert store.prune((status for status in ("completed", "failed")), 5.0) == 1
            assert {head.job_id for head in store.heads()} == {"edge", "new", "running"}
            assert store.prune(["completed"], 5.0) == 0

    def test_jobs_are_removed_but_for_the_last_ones(self) -> None:
        with self.opened() as store:
            for number in range(6):
                begin(store, f"job{number}", status="completed" if number % 2 else "failed", updated=float(number))
            begin(store, "running", updated=0.0)
            assert store.prune(["completed", "failed"], 0.0, keep=4) == 2
            assert {head.job_id for head in store.heads()} == {"job2", "job3", "job4", "job5", "running"}
            assert store.prune(["completed"], 0.0, keep=4) == 0
            assert store.prune(["completed", "failed"], 3.0, keep=3) == 1
            assert store.prune(["completed", "failed"], 0.0, keep=0) == 3
            assert [head.job_id for head in store.heads()] == ["running"]

    def test_what_was_removed_is_gone_and_may_begin_anew(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2", b"3", status="completed", epoch=4, owner="me")
            begin(store, "other", b"1", b"2")
            store.put_snapshot("job", 2, b"two", 4)
            assert store.prune(["completed"], 1000.0) == 1
            refused(StoreError, store.read, "job")
            assert store.read("other") == (0, None, [b"1", b"2"])
            begin(store, "job", b"new")
            assert store.read("job") == (0, None, [b"new"])
            assert head_in(store) == head_of("job")
