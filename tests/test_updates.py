"""S2-S4, D1: no update of the state is lost silently, and nobody acts on it who may not."""

from __future__ import annotations

import threading

import pytest
from parts import Sink, Source, Step, attempt, chain, meanwhile, run
from pydantic import BaseModel, field_validator, model_validator

from routilux import ContextError, ErrorHandler, Flow, StateError

LONG = 20.0


class Basket(BaseModel):
    count: int = 0
    items: list = []


class Numbers(BaseModel):
    items: list[int] = []
    total: int = 0
    n: int = 0


class Summed(Numbers):
    @model_validator(mode="after")
    def summed(self):
        self.total = sum(self.items)
        return self


class Watched(BaseModel):
    n: int = 0

    @model_validator(mode="after")
    def accepted(self):
        return self


def conflicts(handler, other, **options):
    """Check that the handler's write is refused, and return the state of the job."""
    state = meanwhile(handler, other, **options)
    assert [error.type for error in state.errors] == ["ConflictError"]
    return state


# --- what counts as read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Watched, Basket, None])
def test_s2_a_write_of_the_value_that_is_there_already_is_a_write(model):
    key = "count" if model is Basket else "n"

    def handler(ctx):
        value = ctx.store.get(key, 0)
        yield
        ctx.store.set(key, value + 1)

    conflicts(handler, lambda ctx: ctx.store.set(key, 1), state_schema=model)


@pytest.mark.parametrize("model", [Watched, None])
def test_s3_an_edit_to_the_value_that_is_there_already_is_a_write(model):
    def handler(ctx):
        with ctx.store.edit_state() as state:
            if model:
                state.n += 1
            else:
                state["n"] = state.get("n", 0) + 1
            yield

    conflicts(handler, lambda ctx: ctx.store.set("n", 1), state_schema=model)


@pytest.mark.parametrize("model", [Basket, None])
def test_s2_get_state_reads_everything(model):
    def handler(ctx):
        state = ctx.store.get_state()
        yield
        if model:
            state.count += 1
        else:
            state["count"] = state.get("count", 0) + 1
        ctx.store.set_state(state)

    state = conflicts(handler, lambda ctx: ctx.store.set("count", 10), state_schema=model)
    assert state.get_shared_data("count") == 10


def test_s2_set_state_does_not_remove_what_came_after_it_was_read():
    def handler(ctx):
        state = ctx.store.get_state()
        yield
        ctx.store.set_state({**state, "mine": 1})

    state = conflicts(handler, lambda ctx: ctx.store.set("theirs", 2))
    assert state.get_shared_data("theirs") == 2


def test_s2_a_whole_state_goes_by_when_it_was_read_whatever_was_read_since():
    def handler(ctx):
        state = ctx.store.get_state()
        yield
        assert ctx.store.get("count") == 10
        state.count += 1
        ctx.store.set_state(state)

    conflicts(handler, lambda ctx: ctx.store.set("count", 10), state_schema=Basket)


@pytest.mark.parametrize(
    "look",
    [
        lambda state: state.get("count", 0),
        lambda state: "count" in state,
        lambda state: list(state),
        lambda state: len(state),
        lambda state: repr(state),
        lambda state: dict(state.items()),
        lambda state: state.pop("missing", None) or "count" in state.keys(),  # noqa: SIM118
    ],
)
def test_s2_a_look_at_the_mapping_that_finds_nothing_is_a_read(look):
    def handler(ctx):
        look(ctx.state)
        yield
        ctx.state["count"] = 1

    conflicts(handler, lambda ctx: ctx.store.set("count", 10))


def test_s2_setdefault_is_a_read_and_a_write():
    def handler(ctx):
        state = ctx.state
        yield
        state.setdefault("items", []).append("mine")

    state = conflicts(handler, lambda ctx: ctx.store.set("items", ["theirs"]))
    assert state.get_shared_data("items") == ["theirs"]


@pytest.mark.parametrize(
    "look",
    [
        lambda state: state.model_dump(),
        lambda state: state.model_dump_json(),
        lambda state: dict(state),
        lambda state: [value for _, value in state],
        lambda state: vars(state),
        lambda state: repr(state),
        lambda state: state == Basket(),
        lambda state: state.model_copy(),
    ],
)
def test_s2_a_look_at_the_whole_model_is_a_read(look):
    def handler(ctx):
        look(ctx.state)
        yield
        ctx.state.count = 1

    conflicts(handler, lambda ctx: ctx.store.set("count", 10), state_schema=Basket)


@pytest.mark.parametrize("take", [lambda state: dict(state), vars])
def test_s3_what_was_taken_out_of_a_whole_model_is_not_the_records(take):
    def handler(ctx):
        def edit():
            with ctx.store.edit_state() as state:
                take(state)["items"].append("leak")
                raise KeyError

        with pytest.raises(KeyError):
            edit()
        assert ctx.store.get("items") == []

    run(handler, state_schema=Basket)


def test_s2_clearing_the_mapping_removes_all_keys_but_none_that_came_meanwhile():
    def handler(ctx):
        len(ctx.state)
        yield
        ctx.state.clear()

    state = conflicts(handler, lambda ctx: ctx.store.set("a", 2), initial_state={"a": 1, "b": 1})
    assert state.get_shared_data("a") == 2
    state = run(lambda ctx: ctx.state.clear(), initial_state={"a": 1, "b": 1})
    assert state._record.shared == {}


# --- copies that have become stale --------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["store.get", "get_shared_data", "get_state"])
def test_s2_reading_anew_by_any_means_renews_the_working_copy(read):
    def handler(ctx):
        assert ctx.state.items == []
        yield
        if read == "store.get":
            assert ctx.store.get("items") == ["theirs"]
        elif read == "get_shared_data":
            assert ctx.job_state.get_shared_data("items") == ["theirs"]
        else:
            assert ctx.store.get_state().items == ["theirs"]
        ctx.state.items.append("mine")

    state = meanwhile(handler, lambda ctx: ctx.store.set("items", ["theirs"]), state_schema=Basket)
    state.raise_for_status()
    assert state.get_shared_data("items") == ["theirs", "mine"]


def test_s2_a_number_that_was_read_anew_is_not_counted_from_the_old_one():
    def handler(ctx):
        assert ctx.state.items == []
        yield
        assert ctx.store.get("count") == 10
        ctx.state.count += 1

    state = meanwhile(handler, lambda ctx: ctx.store.set("count", 10), state_schema=Basket)
    state.raise_for_status()
    assert state.get_shared_data("count") == 11


def test_s2_a_held_list_that_another_has_replaced_is_not_changed_in_vain():
    def handler(ctx):
        items = ctx.state.items
        yield
        assert ctx.store.get("items") == ["theirs"]
        items.append("mine")

    state = conflicts(handler, lambda ctx: ctx.store.set("items", ["theirs"]), state_schema=Basket)
    assert "another activation" in state.error.message


@pytest.mark.parametrize(
    "replace",
    [
        lambda ctx: ctx.store.set("rows.0.y", 5),
        lambda ctx: ctx.store.set("rows", []),
        lambda ctx: ctx.job_state.update_shared_data("rows", [1]),
        lambda ctx: ctx.store.set_state({"rows": [2]}),
    ],
)
def test_s2_a_held_row_whose_list_was_written_otherwise_is_not_changed_in_vain(replace):
    def handler(ctx):
        row = ctx.state["rows"][0]
        replace(ctx)
        row["x"] = 2

    state = attempt(handler, initial_state={"rows": [{"x": 0}]})
    assert state.error.type == "StateError"
    assert "key 'rows'" in state.error.message
    assert "take it from ctx.state anew" in state.error.message


def test_s2_a_held_list_of_which_an_edit_made_another_is_not_changed_in_vain():
    def handler(ctx):
        items = ctx.state["items"]
        with ctx.store.edit_state() as state:
            state["items"].append(1)
        items.append(2)

    assert attempt(handler, initial_state={"items": []}).error.type == "StateError"


def test_s2_a_held_list_lives_on_as_long_as_nothing_else_writes_it():
    def handler(ctx):
        rows, row = ctx.state["rows"], ctx.state["rows"][0]
        row["x"] = 1
        ctx.store.get("rows")
        row["x"] = 2
        ctx.job_state.update_shared_data("other", 1)
        with ctx.store.edit_state() as state:
            state["another"] = 1
        rows.append({})

    assert run(handler, initial_state={"rows": [{"x": 0}]}).get_shared_data("rows") == [{"x": 2}, {}]


@pytest.mark.parametrize("model", [Numbers, Summed])
def test_s2_a_held_list_stays_the_states_when_its_items_are_coerced(model):
    def handler(ctx):
        items = ctx.state.items
        items.append("1")
        ctx.state.n += 1
        assert items == [1]
        items.append(2)

    assert run(handler, state_schema=model).get_shared_data("items") == [1, 2]


def test_s2_what_a_validator_replaced_inside_a_held_list_is_not_changed_in_vain():
    class Rows(BaseModel):
        rows: list[dict[str, int]] = [{"x": 0}]
        n: int = 0

    def handler(ctx):
        row = ctx.state.rows[0]
        row["x"] = "1"
        ctx.state.n = 1
        row["x"] = 2

    assert attempt(handler, state_schema=Rows).error.type == "StateError"


def test_s2_fields_that_validators_derive_are_seen_at_once():
    def handler(ctx):
        ctx.state.items.append(5)
        assert ctx.state.total == 0
        ctx.store.get("n")
        assert (ctx.state.total, ctx.store.get("total")) == (5, 5)

    run(handler, state_schema=Summed)


def test_s2_a_model_validator_makes_no_conflicts_about_keys_that_nobody_wrote():
    def handler(ctx):
        ctx.store.get("items")
        yield
        ctx.store.set("items", [1])

    state = meanwhile(handler, lambda ctx: ctx.store.set("n", 1), state_schema=Summed)
    state.raise_for_status()

    def edits(ctx):
        with ctx.store.edit_state() as state:
            state.n += 1
            yield

    state = meanwhile(edits, lambda ctx: ctx.store.set("items", [1]), state_schema=Summed)
    state.raise_for_status()
    assert [state.get_shared_data(key) for key in ("items", "total", "n")] == [[1], 1, 1]


def test_s4_any_difference_is_a_change():
    class Yes(BaseModel):
        yes: bool | int = True

    def handler(ctx):
        ctx.state["list"][0] = True
        ctx.state["order"]["a"] = ctx.state["order"].pop("a")
        ctx.state["set"].remove(1)
        ctx.state["set"].add(1.0)
        ctx.state["model"].yes = 1
        ctx.state["tuple"][0][0] = 1.0

    begin = {"list": [1], "order": {"a": 1, "b": 2}, "set": {1}, "model": Yes(), "tuple": ([1],)}
    state = run(handler, initial_state=begin)
    assert state.get_shared_data("list")[0] is True
    assert list(state.get_shared_data("order")) == ["b", "a"]
    assert [type(each) for each in state.get_shared_data("set")] == [float]
    assert state.get_shared_data("model").yes is not True
    assert type(state.get_shared_data("tuple")[0][0]) is float


def test_s4_an_assigned_object_goes_on_being_the_states_in_edits_and_outside():
    def handler(ctx):
        mine = []
        ctx.state["mine"] = mine
        mine.append(1)
        assert ctx.state["mine"] is mine
        assert ctx.store.get("mine") == [1]
        mine.append(2)
        with ctx.store.edit_state() as state:
            edited = []
            state["edited"] = edited
            edited.append(1)

    state = run(handler)
    assert (state.get_shared_data("mine"), state.get_shared_data("edited")) == ([1, 2], [1])


def test_s4_an_assigned_object_of_which_validation_made_another_is_not_changed_in_vain():
    def handler(ctx):
        mine = ["1"]
        ctx.state.items = mine
        assert ctx.state.items == [1]
        mine.append("2")

    assert attempt(handler, state_schema=Numbers).error.type == "StateError"


def popped(ctx):
    return ctx.state.pop("batch")


def deleted(ctx):
    batch = ctx.state["batch"]
    del ctx.state["batch"]
    return batch


def cleared(ctx):
    batch = ctx.state["batch"]
    ctx.store.clear()
    return batch


def popped_in_an_edit(ctx):
    with ctx.store.edit_state() as state:
        batch = state.pop("batch")
        batch.append("edited")
    return batch[:1]


def deleted_by_an_edit(ctx):
    batch = ctx.state["batch"]
    with ctx.store.edit_state() as state:
        del state["batch"]
    return batch


@pytest.mark.parametrize("take", [popped, deleted, cleared, popped_in_an_edit, deleted_by_an_edit])
def test_s4_what_a_handler_has_taken_out_of_the_state_is_its_own(take):
    def handler(ctx):
        batch = take(ctx)
        batch.append(2)
        ctx.state["done"] = batch
        batch.append(3)

    state = run(handler, initial_state={"batch": [1]})
    assert state._record.shared == {"done": [1, 2, 3]}


def test_s4_what_was_taken_out_is_the_handlers_own_also_when_parts_of_it_had_been_written_otherwise():
    def handler(ctx):
        row = ctx.state["rows"][0]
        ctx.store.set("rows.0.y", 5)
        ctx.state.pop("rows")
        row["x"] = 2

    assert run(handler, initial_state={"rows": [{"x": 0}]})._record.shared == {}


def test_s2_a_held_list_that_another_has_taken_out_is_not_changed_in_vain():
    def handler(ctx):
        items = ctx.state["items"]
        yield
        assert ctx.store.get("items", None) is None
        items.append("mine")

    state = conflicts(handler, lambda ctx: ctx.state.pop("items"), initial_state={"items": []})
    assert "another activation" in state.error.message


# --- edits and what goes on beside them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda ctx: ctx.job_state.update_shared_data("count", 100),
        lambda ctx: ctx.store.set("count", 100),
        lambda ctx: ctx.store.set_state({}),
        lambda ctx: ctx.store.clear(),
    ],
)
def test_s3_inside_an_edit_other_writes_are_refused(write):
    def handler(ctx):
        with ctx.store.edit_state() as state:
            state.count = 1
            with pytest.raises(StateError, match="change the state that edit_state"):
                write(ctx)

    assert run(handler, state_schema=Basket).get_shared_data("count") == 1


@pytest.mark.parametrize("model", [Basket, None])
def test_s3_inside_an_edit_everything_reads_the_edited_state(model):
    def handler(ctx):
        before = ctx.state
        with ctx.store.edit_state() as state:
            if model:
                state.count = 1
                state.items.append(2)
                ctx.state.count += 1
            else:
                state["count"] = 1
                state["items"] = [2]
                ctx.state["count"] += 1
            assert ctx.store.get("count") == ctx.job_state.get_shared_data("count") == 2
            assert ctx.store.get("items.0") == 2
            whole = ctx.store.get_state()
            assert whole == (Basket(count=2, items=[2]) if model else {"count": 2, "items": [2]})
            with pytest.raises(StateError, match="inside edit_state"):
                before.count if model else before["count"]
        assert ctx.state is before
        assert (before.count if model else before["count"]) == 2

    run(handler, state_schema=model)


@pytest.mark.parametrize("fails", [False, True])
def test_s3_what_is_changed_in_place_beside_an_edit_is_not_lost_silently(fails):
    def handler(ctx):
        items = ctx.state.items
        try:
            with ctx.store.edit_state() as state:
                state.count = 1
                items.append("beside")
                if fails:
                    raise KeyError
        except KeyError:
            pass

    state = attempt(handler, state_schema=Basket)
    assert state.error.type == "StateError"
    assert (state.get_shared_data("count"), state.get_shared_data("items")) == (0, [])


def test_s3_what_is_set_in_an_edit_from_an_earlier_look_is_a_conflict():
    def handler(ctx):
        count = ctx.store.get("count")
        yield
        with ctx.store.edit_state() as state:
            state.count = count + 1

    conflicts(handler, lambda ctx: ctx.store.set("count", 10), state_schema=Basket)


def test_s3_routine_states_are_no_part_of_an_edit():
    def handler(ctx):
        def edit():
            with ctx.store.edit_state() as state:
                state["n"] = 1
                ctx.job_state.update_routine_state("r0", {"n": 1})
                raise KeyError

        with pytest.raises(KeyError):
            edit()

    state = run(handler)
    assert (state.get_shared_data("n"), state.get_routine_state("r0")) == (None, {"n": 1})


@pytest.mark.parametrize(
    "use", [lambda edit: setattr(edit, "count", 5), lambda edit: edit.count, lambda edit: edit["n"]]
)
def test_s3_an_edit_without_with_says_so(use):
    def handler(ctx):
        with pytest.raises(StateError, match=r"'with ctx\.store\.edit_state\(\) as state:'"):
            use(ctx.store.edit_state())

    run(handler, state_schema=Basket)


def test_s3_an_edit_that_was_not_left_is_dropped_with_its_emissions():
    sink, kept = Sink(), []

    def handler(step, data):
        if data == 1:
            kept.append(step.get_execution_context().store.edit_state())
            kept[0].__enter__()["n"] = 1
            step.emit("output", data=data)
        else:
            with step.get_execution_context().store.edit_state() as state:
                state["m"] = state.get("m", 0) + 1

    flow = chain(Source([1, 2, 3]), Step(handler), sink)
    flow.set_error_handler(ErrorHandler("continue"))
    state = flow.execute("r0")
    assert [error.type for error in state.errors] == ["StateError"]
    assert "entered and not left" in state.error.message
    assert sink.got == []
    assert (state.get_shared_data("n"), state.get_shared_data("m")) == (None, 2)


# --- D1: who may ----------------------------------------------------------------------------------------------------


def test_d1_state_and_store_do_not_outlive_their_turn():
    kept = []

    def handler(step, data):
        ctx = step.get_execution_context()
        if not kept:
            with ctx.store.edit_state() as edited:
                edited.count = 1
            kept.extend([ctx.store, ctx.state, edited])
            assert ctx.state.items == []
            return
        store, state, edited = kept
        for use in (
            lambda: store.get("count"),
            lambda: store.set("count", 5),
            lambda: store.get_state(),
            lambda: store.edit_state(),
            lambda: state.count,
            lambda: state.items,
            lambda: state.model_dump(),
            lambda: setattr(state, "count", 5),
            lambda: edited.count,
        ):
            with pytest.raises(ContextError):
                use()

    flow = chain(Source([1, 2, 3]), Step(handler), state_schema=Basket)
    flow.execute("r0").raise_for_status()
    with pytest.raises(ContextError):
        kept[1].count  # noqa: B018


@pytest.mark.parametrize("model", [Basket, None])
def test_d1_the_state_is_for_its_own_thread(model):
    def handler(ctx):
        state, found = ctx.state, []

        def elsewhere():
            for use in (
                lambda: state.items,
                lambda: state["count"],
                lambda: repr(state),
                lambda: state.__setattr__("count", 1) if model else state.update(count=1),
            ):
                try:
                    found.append(use())
                except (ContextError, StateError) as error:
                    found.append(type(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        if model:
            assert found == [ContextError, StateError, ContextError, ContextError]
        else:
            assert found[1:] == [ContextError, ContextError, ContextError]

    run(handler, state_schema=model)


def test_s3_the_state_of_an_edit_that_is_over_is_refused():
    def handler(ctx):
        with ctx.store.edit_state() as state:
            pass
        for use in (lambda: setattr(state, "count", 5), lambda: state.count):
            with pytest.raises(StateError, match="an edit that is over"):
                use()

    run(handler, state_schema=Basket)


def test_l3_what_a_handler_changed_in_place_before_its_time_was_up_is_dropped():
    release = threading.Event()

    def handler(step, **_):
        step.get_execution_context().state.items.append("late")
        assert release.wait(LONG)

    flow = chain(Step(handler, timeout=0.05), state_schema=Basket)
    flow.set_error_handler(ErrorHandler("continue"))
    state = flow.execute("r0")
    release.set()
    assert [error.type for error in state.errors] == ["HandlerTimeoutError"]
    assert state.get_shared_data("items") == []


def test_t3_a_timeout_that_the_handler_raised_itself_drops_nothing():
    release = threading.Event()
    inner = chain(Step(lambda step, **_: release.wait(LONG), timeout=0.01))

    def handler(ctx):
        ctx.state.items.append("kept")
        inner.execute("r0").raise_for_status()

    state = attempt(handler, state_schema=Basket)
    release.set()
    assert state.error.type == "HandlerTimeoutError"
    assert state.get_shared_data("items") == ["kept"]


# --- E: writes that are validated beside others --------------------------------------------------------------------


def test_s2_a_slow_validation_is_not_begun_again_for_writes_that_do_not_matter():
    runs, wrote = [], threading.Barrier(2, timeout=LONG)

    class Slow(BaseModel):
        n: int = 0
        other: int = 0

        @field_validator("n")
        @classmethod
        def checked(cls, value):
            if value:
                runs.append(value)
                wrote.wait()
                wrote.wait()
            return value

    def busy(step, data):
        ctx = step.get_execution_context()
        wrote.wait()
        ctx.job_state.update_routine_state("busy", {"n": 1})
        ctx.store.set("other", 1)
        wrote.wait()

    flow = Flow("slow", execution_strategy="concurrent", max_workers=3, state_schema=Slow)
    flow.add_routine(Source([1]), "source")
    flow.add_routine(Step(lambda step, data: step.get_execution_context().store.set("n", 1)), "slow")
    flow.add_routine(Step(busy), "busy")
    flow.connect("source", "output", "slow", "input")
    flow.connect("source", "output", "busy", "input")
    with flow:
        state = flow.execute("source")
    state.raise_for_status()
    assert runs == [1]


def test_s2_a_validated_write_comes_through_however_often_others_write_the_same():
    others = []

    class Hammered(BaseModel):
        n: int = 0

        @model_validator(mode="after")
        def hammered(self):
            if self.n == 1 and len(others) < 1000:
                # As if another thread had written at every validation; under the lock it could not.
                record = job[0]._record
                if not record_is_locked(job[0]):
                    others.append(1)
                    record.shared["n"] = 1000 + len(others)
            return self

    job = []

    def record_is_locked(state):
        return bool(state._job.lock.inside)

    def handler(ctx):
        job.append(ctx.job_state)
        ctx.store.set("n", 1)

    assert run(handler, state_schema=Hammered).get_shared_data("n") == 1
    assert 1 < len(others) < 20
