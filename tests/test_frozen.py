"""Records that never change, which stand in for frozen dataclasses."""

from __future__ import annotations

import copy
import pickle

import pytest

from routilux.core.frozen import Frozen


class Box(Frozen):
    width: int
    height: int = 2


def test_values_are_given_by_place_and_by_name_and_have_defaults():
    assert [(box.width, box.height) for box in (Box(1), Box(1, 3), Box(height=4, width=1))] == [(1, 2), (1, 3), (1, 4)]
    assert repr(Box(1)) == "Box(width=1, height=2)"


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"width": 1}), ((1,), {"depth": 1}), ((), {"height": 1})]
)
def test_what_is_missing_unknown_too_much_or_given_twice_is_refused(values, named):
    with pytest.raises(TypeError, match="Box takes width, height"):
        Box(*values, **named)


def test_nothing_of_it_changes():
    box = Box(1)
    with pytest.raises(AttributeError, match="a Box does not change"):
        box.width = 2
    with pytest.raises(AttributeError, match="a Box does not change"):
        del box.width
    assert not hasattr(box, "__dict__")


def test_copies_share_it_and_another_one_is_made_with_changes():
    box = Box(1)
    assert copy.copy(box) is copy.deepcopy(box) is box
    other = box.with_changes(height=5)
    assert (other.width, other.height, box.height) == (1, 5, 2)
    again = pickle.loads(pickle.dumps(box))
    assert (again.width, again.height) == (1, 2)


def test_it_is_equal_to_itself_only():
    assert Box(1) != Box(1)
    assert len({Box(1), Box(1)}) == 2
