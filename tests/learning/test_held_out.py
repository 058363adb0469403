"""Held-out strokes: which, how many, and that the decision stays."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_sparseseg.learning.held_out import (
    HELD_OUT,
    LEARNED,
    UNLABELLED,
    HeldOutStrokes,
)

Labels = NDArray[np.uint8]

#: Dots of 2 x 2 pixels, this far from each other.
PITCH = 5


def dots(values: Sequence[int], columns: int = 10) -> Labels:
    """Give a label map with one dot for each of *values* (0 = none), row by row."""
    rows = -(-len(values) // columns)
    grid = np.zeros(rows * columns, np.uint8)
    grid[: len(values)] = values
    small = np.zeros((rows, PITCH, columns, PITCH), np.uint8)
    small[:, 1:3, :, 1:3] = grid.reshape(rows, 1, columns, 1)
    return small.reshape(rows * PITCH, columns * PITCH)


def grown(labels: Labels) -> Labels:
    """Widen every dot by a pixel on each side; they do not touch."""
    return np.asarray(ndimage.grey_dilation(labels, size=(3, 3)), np.uint8)


def members_of_strokes(labels: Labels, members: Labels) -> list[set[int]]:
    """Give the memberships found in each 8-connected component of each class."""
    found = []
    for value in np.unique(labels[labels != 0]):
        ids, count = ndimage.label(labels == value, np.ones((3, 3)))
        found += [set(members[ids == each].tolist()) for each in range(1, count + 1)]
    return found


def decide(labels: Labels, seed: int = 0) -> tuple[HeldOutStrokes, Labels]:
    """Give what is decided about an image named "a" alone."""
    strokes = HeldOutStrokes(seed)
    strokes.update({"a": labels})
    return strokes, strokes.membership["a"]


@pytest.mark.parametrize(
    ("n_strokes", "n_held_out"),
    [(4, 0), (5, 1), (10, 2), (40, 8), (100, 20), (150, 20)],
)
def test_a_fifth_of_the_strokes_of_a_class_is_held_out(
    n_strokes: int, n_held_out: int
) -> None:
    labels = dots([3] * n_strokes)
    strokes, members = decide(labels)
    found = members_of_strokes(labels, members)
    assert found.count({HELD_OUT}) == n_held_out
    assert found.count({LEARNED}) == n_strokes - n_held_out  # so none is divided
    assert strokes.held_out_strokes() == ({3: n_held_out} if n_held_out else {})
    assert ((members == UNLABELLED) == (labels == 0)).all()


def test_each_class_is_decided_by_itself() -> None:
    strokes, _ = decide(dots([1] * 20 + [2] * 4 + [9] * 5))
    assert strokes.held_out_strokes() == {1: 4, 9: 1}


def test_diagonal_neighbours_are_one_stroke() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[np.arange(40), np.arange(40)] = 1
    strokes, members = decide(labels)
    assert strokes.held_out_strokes() == {}
    assert (members[labels > 0] == LEARNED).all()


def test_strokes_are_counted_over_all_images() -> None:
    strokes = HeldOutStrokes(0)
    images = {name: dots([1, 1, 2]) for name in "abcde"}
    strokes.update(images)
    assert strokes.held_out_strokes() == {1: 2, 2: 1}
    held_out = [
        members_of_strokes(labels, strokes.membership[name]).count({HELD_OUT})
        for name, labels in images.items()
    ]
    assert sum(held_out) == 3


def test_images_that_come_one_by_one_are_counted_together() -> None:
    strokes = HeldOutStrokes(0)
    for name in "abcde":
        strokes.update({name: dots([1, 1])})
    assert strokes.held_out_strokes() == {1: 2}
    for name in "abcde":
        strokes.discard(name)
    assert strokes.held_out_strokes() == {}
    assert not strokes.membership


def test_the_seed_decides() -> None:
    labels = dots([1] * 50)
    _, first = decide(labels, seed=1)
    _, same = decide(labels, seed=1)
    _, other = decide(labels, seed=2)
    assert (first == same).all()
    assert (first != other).any()


def test_a_stroke_that_grows_keeps_its_membership() -> None:
    labels = dots([1] * 20)
    strokes, before = decide(labels)
    larger = grown(labels)
    strokes.update({"a": larger})
    after = strokes.membership["a"]
    assert (after[labels > 0] == before[labels > 0]).all()
    assert members_of_strokes(larger, after).count({HELD_OUT}) == 4
    assert members_of_strokes(larger, after).count({LEARNED}) == 16


def test_a_stroke_that_is_split_keeps_its_membership_in_both_parts() -> None:
    labels = np.kron(dots([1] * 20), np.ones((3, 3), np.uint8))
    strokes, before = decide(labels)
    cut = labels.copy()
    for row in range(4, labels.shape[0], 3 * PITCH):
        cut[row + 1 : row + 3] = 0
    strokes.update({"a": cut})
    after = strokes.membership["a"]
    assert len(members_of_strokes(cut, after)) == 40
    assert members_of_strokes(cut, after).count({HELD_OUT}) == 8
    assert (after[cut > 0] == before[cut > 0]).all()


def test_held_out_and_learned_merged_are_learned() -> None:
    labels = dots([1] * 10)
    strokes, before = decide(labels)
    joined = labels.copy()
    joined[2] = 1  # one line through all ten
    assert {HELD_OUT, LEARNED} <= set(before[labels > 0].tolist())
    strokes.update({"a": joined})
    assert (strokes.membership["a"][joined > 0] == LEARNED).all()
    assert strokes.held_out_strokes() == {}


def test_held_out_strokes_merged_with_each_other_stay_held_out() -> None:
    labels = dots([1] * 10)
    strokes, before = decide(labels)
    first, last = np.flatnonzero((before == HELD_OUT).any(axis=0))[[0, -1]]
    joined = labels.copy()
    joined[4, first : last + 1] = 1  # below the dots
    for column in (first, last):
        joined[1:5, column] = 1
    strokes.update({"a": joined})
    after = strokes.membership["a"]
    assert (after[4, first : last + 1] == HELD_OUT).all()
    assert (after[labels > 0] == before[labels > 0]).all()
    assert strokes.held_out_strokes() == {1: 1}


def test_new_strokes_are_decided_and_what_was_learned_is_never_held_out() -> None:
    order = np.random.default_rng(0).permutation(60)
    values = np.zeros(60, np.uint8)
    strokes = HeldOutStrokes(0)
    before = np.zeros_like(dots([0] * 60))
    counts = []
    for start in range(0, 60, 3):
        values[order[start : start + 3]] = 1
        strokes.update({"a": dots(values.tolist())})
        after = strokes.membership["a"]
        assert (after[before > 0] == before[before > 0]).all()
        counts.append(strokes.held_out_strokes().get(1, 0))
        before = after
    assert counts[0] == 0
    assert counts[-1] == 12
    assert counts == sorted(counts)


def test_the_first_strokes_stay_learned_when_a_class_becomes_common() -> None:
    strokes, _ = decide(dots([1] * 4))
    more = dots([1] * 10)
    strokes.update({"a": more})
    members = strokes.membership["a"]
    assert (members[:, : 4 * PITCH][more[:, : 4 * PITCH] > 0] == LEARNED).all()
    assert strokes.held_out_strokes() == {1: 2}


def test_an_image_of_another_size_is_decided_anew() -> None:
    strokes, _ = decide(dots([1] * 10))
    strokes.update({"a": dots([1] * 20)})
    assert strokes.membership["a"].shape == dots([1] * 20).shape
    assert strokes.held_out_strokes() == {1: 4}


def test_a_decision_is_restored_by_its_pixels() -> None:
    labels = dots([1] * 20 + [2] * 5)
    strokes, members = decide(labels, seed=1)
    state = json.loads(json.dumps(strokes.random_state(), allow_nan=False))

    other, _ = decide(labels, seed=2)
    other.restore("a", labels, np.flatnonzero(members == HELD_OUT))
    other.set_random_state(state)
    assert (other.membership["a"] == members).all()
    assert other.held_out_strokes() == strokes.held_out_strokes()

    more = dots([1] * 20 + [2] * 5 + [1] * 40)
    for each in (strokes, other):
        each.update({"a": dots([1] * 20 + [2] * 5), "b": more})
    assert (other.membership["b"] == strokes.membership["b"]).all()


def test_places_that_are_not_annotated_any_more_are_not_restored() -> None:
    labels = dots([1] * 10)
    strokes, _ = decide(labels)
    strokes.restore("a", labels, np.array([0, 1, PITCH * 10 + 1, labels.size + 7]))
    members = strokes.membership["a"]
    assert members[0, 0] == UNLABELLED
    assert members[1, 1] == HELD_OUT
    held_out = members_of_strokes(labels, members)
    assert held_out.count({HELD_OUT}) == 1  # the whole stroke around that place
    assert held_out.count({LEARNED}) == 9


def test_a_held_out_stroke_that_grew_meanwhile_is_restored_whole() -> None:
    labels = dots([1] * 20)
    strokes, before = decide(labels)
    held_out = np.flatnonzero(before == HELD_OUT)
    larger = grown(labels)
    restored = HeldOutStrokes(1)
    restored.restore("a", larger, held_out)
    found = members_of_strokes(larger, restored.membership["a"])
    assert found.count({HELD_OUT}) == strokes.held_out_strokes()[1] == 4
    assert found.count({LEARNED}) == 16
    assert restored.held_out_strokes() == {1: 4}


def test_held_out_strokes_are_released_but_for_classes_that_are_spared() -> None:
    strokes, _ = decide(dots([1] * 10 + [2] * 10))
    assert strokes.held_out_strokes() == {1: 2, 2: 2}
    strokes.release("a", dots([1] * 10 + [2] * 10), {2})
    assert strokes.held_out_strokes() == {2: 2}
