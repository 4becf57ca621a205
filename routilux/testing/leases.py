"""Tests of who owns a job: claiming, leases, deaths."""

from __future__ import annotations

from ..errors import StaleWriterError
from ..store.base import FactStore
from .parts import StoreTests, begin, head_in, head_of, refused


def lose(store: FactStore, owner: str, epoch: int) -> int:
    """Have an owner claim the job, whose former owner has died; return the deaths that it counts."""
    (claimed,) = store.claim(owner, 1000.0, 0.0, ["job"], dead=[head_in(store).owner or ""])
    assert claimed.head.epoch == epoch
    return claimed.head.deaths


class LeaseTests(StoreTests):
    """Tests of claim and let_go."""

    def test_j7_a_free_job_is_claimed_with_the_next_epoch(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2", epoch=6)
            (claimed,) = store.claim("me", 1000.0, 0.0, ["job"])
            assert claimed == (head_of("job", owner="me", epoch=7), 2)
            assert head_in(store) == claimed.head
            refused(StaleWriterError, store.append, "job", 2, [b"late"], 6)
            store.append("job", 2, [b"3"], 7)

    def test_j7_the_last_entry_is_told_with_a_snapshot_too(self) -> None:
        with self.opened() as store:
            for job_id, number in (("a", 1), ("b", 2)):
                begin(store, job_id, b"1", b"2")
                store.put_snapshot(job_id, number, b"snapshot", 0)
            assert [claimed.last for claimed in store.claim("me", 1000.0, 0.0, ["a", "b"])] == [2, 2]
            store.append("b", 2, [b"3"], 1)

    def test_j7_jobs_are_claimed_in_the_order_in_which_they_were_asked_for(self) -> None:
        with self.opened() as store:
            for job_id in "abc":
                begin(store, job_id)
            claimed = store.claim("me", 1000.0, 0.0, ["c", "nowhere", "a", "c", "b"])
            assert [each.head.job_id for each in claimed] == ["c", "a", "b"]
            assert [head.epoch for head in store.heads()] == [1, 1, 1]

    def test_j7_a_job_with_an_owner_is_not_claimed(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("me", 1000.0, 0.0, ["job"])
            assert store.claim("you", 1000.0, 500.0, ["job"]) == []
            assert store.claim("me", 2000.0, 500.0, ["job"]) == []
            assert head_in(store) == head_of("job", owner="me", epoch=1)

    def test_j7_a_lease_ends_when_its_time_is_over(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("me", 1000.0, 0.0, ["job"])
            assert store.claim("you", 2000.0, 1000.0, ["job"]) == []
            (claimed,) = store.claim("you", 2000.0, 1000.5, ["job"])
            assert (claimed.head.owner, claimed.head.epoch) == ("you", 2)
            refused(StaleWriterError, store.append, "job", 1, [b"late"], 1)

    def test_j7_a_lease_is_renewed_by_every_claim(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("me", 1000.0, 0.0, ["job"])
            assert store.claim("me", 2000.0, 900.0) == []
            assert store.claim("you", 2000.0, 1500.0, ["job"]) == []
            assert head_in(store).epoch == 1

    def test_j7_an_owner_whose_lease_has_ended_keeps_what_nobody_claimed(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("me", 1000.0, 0.0, ["job"])
            assert store.claim("you", 9000.0, 5000.0) == []
            assert store.claim("me", 9000.0, 5000.0, ["job"]) == []
            store.append("job", 1, [b"2"], 1)
            assert store.claim("you", 9000.0, 5000.0, ["job"]) == []

    def test_j7_a_job_is_free_when_its_owner_never_had_a_lease(self) -> None:
        with self.opened() as store:
            begin(store, owner="me", epoch=1)
            (claimed,) = store.claim("you", 1000.0, 0.0, ["job"])
            assert (claimed.head.owner, claimed.head.epoch) == ("you", 2)

    def test_j7_a_new_job_is_its_owners_while_the_lease_lasts(self) -> None:
        with self.opened() as store:
            store.claim("me", 1000.0, 0.0)
            begin(store, owner="me", epoch=1)
            assert store.claim("you", 1000.0, 0.0, ["job"]) == []
            store.append("job", 1, [b"2"], 1)

    def test_j7_the_jobs_of_the_dead_are_free_at_once_and_later(self) -> None:
        with self.opened() as store:
            for job_id in "abc":
                begin(store, job_id)
            store.claim("me", 1000.0, 0.0, ["a", "b"])
            store.claim("other", 1000.0, 0.0, ["c"])
            claimed = store.claim("you", 1000.0, 1.0, ["a", "c"], dead=["me", "nobody"])
            assert [each.head.job_id for each in claimed] == ["a"]
            assert [each.head.job_id for each in store.claim("you", 1000.0, 1.0, ["b", "c"])] == ["b"]

    def test_j7_who_lets_go_of_a_job_keeps_the_others(self) -> None:
        with self.opened() as store:
            for job_id in "abc":
                begin(store, job_id)
            store.claim("me", 1000.0, 0.0, ["a", "b"])
            store.claim("you", 1000.0, 0.0, ["c"])
            store.let_go("me", ["a", "c", "nowhere"])
            assert [head.owner for head in store.heads()] == [None, "me", "you"]
            assert [head.epoch for head in store.heads()] == [1, 1, 1]
            (claimed,) = store.claim("you", 1000.0, 0.0, ["a", "b"])
            assert (claimed.head.job_id, claimed.head.epoch) == ("a", 2)

    def test_j7_who_lets_go_of_all_jobs_has_no_lease_any_more(self) -> None:
        with self.opened() as store:
            for job_id in "abc":
                begin(store, job_id)
            store.claim("me", 1000.0, 0.0, ["a", "b"])
            store.claim("you", 1000.0, 0.0, ["c"])
            store.let_go("me")
            store.let_go("nobody")
            assert [head.owner for head in store.heads()] == [None, None, "you"]
            begin(store, "d", owner="me")
            assert len(store.claim("other", 1000.0, 0.0, ["a", "b", "c", "d"])) == 3

    def test_j7_letting_go_of_some_jobs_does_not_end_the_lease(self) -> None:
        with self.opened() as store:
            begin(store, "a")
            store.claim("me", 1000.0, 0.0, ["a"])
            store.let_go("me", ["a"])
            store.let_go("me", [])
            begin(store, "b", owner="me")
            assert store.claim("you", 1000.0, 0.0, ["b"]) == []

    def test_j7_a_job_that_was_let_go_takes_entries_until_it_is_claimed(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("me", 1000.0, 0.0, ["job"])
            store.let_go("me", ["job"])
            store.append("job", 1, [b"2"], 1)
            store.claim("you", 1000.0, 0.0, ["job"])
            refused(StaleWriterError, store.append, "job", 2, [b"late"], 1)

    def test_j10_a_job_that_is_lost_again_and_again_counts_deaths(self) -> None:
        with self.opened() as store:
            begin(store)
            assert [lose(store, f"owner{number}", number) for number in (1, 2, 3)] == [0, 1, 2]

    def test_j10_a_lease_that_ran_out_is_a_death_too(self) -> None:
        with self.opened() as store:
            begin(store)
            for number, deaths in enumerate((0, 1, 2)):
                (claimed,) = store.claim(f"owner{number}", 10.0 * number + 5, 10.0 * number, ["job"])
                assert claimed.head.deaths == deaths

    def test_j10_who_made_a_job_has_appended_something(self) -> None:
        with self.opened() as store:
            store.claim("me", 1000.0, 0.0)
            begin(store, owner="me", epoch=1)
            assert [lose(store, "you", 2), lose(store, "other", 3)] == [0, 1]

    def test_j10_an_entry_ends_the_row_of_deaths(self) -> None:
        with self.opened() as store:
            begin(store)
            assert [lose(store, "a", 1), lose(store, "b", 2)] == [0, 1]
            store.append("job", 1, [b"2"], 2)
            store.put_snapshot("job", 2, b"snapshot", 2)
            assert head_in(store).deaths == 1
            assert [lose(store, "c", 3), lose(store, "d", 4)] == [0, 1]

    def test_j10_a_head_or_a_snapshot_is_no_entry(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2")
            lose(store, "a", 1)
            store.append("job", 2, [], 1, head_of("job", updated=200.0))
            store.put_snapshot("job", 2, b"snapshot", 1)
            assert lose(store, "b", 2) == 1

    def test_j10_a_job_that_was_let_go_keeps_its_count(self) -> None:
        with self.opened() as store:
            begin(store)
            assert [lose(store, "a", 1), lose(store, "b", 2)] == [0, 1]
            store.let_go("b", ["job"])
            assert lose(store, "c", 3) == 1
            store.let_go("c")
            assert [lose(store, "d", 4), lose(store, "e", 5)] == [1, 2]
            store.append("job", 1, [b"2"], 5)
            store.let_go("e")
            assert lose(store, "f", 6) == 0

    def test_j10_a_job_that_was_lost_while_it_waited_keeps_its_count(self) -> None:
        self._keeps_its_count("waiting")

    def test_j10_a_job_that_was_lost_while_it_was_paused_keeps_its_count(self) -> None:
        self._keeps_its_count("paused")

    def _keeps_its_count(self, status: str) -> None:
        with self.opened() as store:
            begin(store)
            assert [lose(store, "a", 1), lose(store, "b", 2)] == [0, 1]
            store.append("job", 1, [], 2, head_of("job", status=status))
            assert [lose(store, "c", 3), lose(store, "d", 4)] == [1, 1]
            store.append("job", 1, [b"2"], 4)
            assert lose(store, "e", 5) == 0
