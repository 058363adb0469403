"""Training sets: their checks and counts, dense images, working resolutions."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import ImageError, LabelError
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning import training_set as training_set_module
from napari_sparseseg.learning.held_out import HELD_OUT, LEARNED
from napari_sparseseg.learning.parts import advance
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet

CLASSES = ClassTable.from_values([1, 4, 300])
SIZE = 24


def strokes(*values: int, size: int = SIZE) -> NDArray[np.uint16]:
    """Give a label map with a column of 2 pixels width for each value."""
    labels = np.zeros((size, size), np.uint16)
    for index, value in enumerate(values):
        labels[4:20, 4 * index + 1 : 4 * index + 3] = value
    return labels


def image(
    name: str,
    labels: NDArray[Any] | None = None,
    *,
    shape: tuple[int, ...] = (SIZE, SIZE, 3),
    dense: bool = False,
    um_per_px: float | None = None,
) -> TrainingImage:
    pixels = np.random.default_rng(len(name)).integers(0, 256, shape).astype(np.uint8)
    if labels is None:
        labels = strokes(1, 4)
    return TrainingImage(name, pixels, labels, dense, um_per_px)


def training_set(*images: TrainingImage, seed: int = 0) -> TrainingSet:
    return TrainingSet(images, CLASSES, Normalisation("range", 0, 255), seed)


# Checks.


def test_there_must_be_an_image() -> None:
    with pytest.raises(ImageError, match="no image is given"):
        training_set()


def test_labels_must_be_as_large_as_their_image() -> None:
    with pytest.raises(LabelError, match=r"slide.*\(20, 20\).*\(24, 24\)"):
        training_set(image("slide", strokes(1, 4)[:20, :20]))


def test_values_must_be_in_the_class_table() -> None:
    with pytest.raises(LabelError, match=r"slide.*7"):
        training_set(image("slide", strokes(1, 7)))


def test_images_must_have_the_same_channels() -> None:
    with pytest.raises(ImageError, match=r"ct has 1 channel\(s\), but slide has 3"):
        training_set(image("slide"), image("ct", shape=(SIZE, SIZE)))


def test_the_channels_stay_when_all_images_are_taken_out() -> None:
    data = training_set(image("slide"))
    data.remove("slide")
    assert data.n_channels == 3
    with pytest.raises(
        ImageError, match=r"ct has 1 channel\(s\), but the training has 3"
    ):
        data.put(image("ct", shape=(SIZE, SIZE)))
    data.put(image("other"))


def test_one_class_is_not_enough() -> None:
    data = training_set(image("a", strokes(4, 4)), image("b", strokes(4)))
    with pytest.raises(LabelError, match="only the class 'class 4' is annotated"):
        data.check_trainable()


def test_no_stroke_is_not_enough() -> None:
    with pytest.raises(LabelError, match="no pixel is annotated"):
        training_set(image("a", strokes())).check_trainable()


def test_two_classes_are_enough_even_in_two_images() -> None:
    training_set(image("a", strokes(4)), image("b", strokes(1))).check_trainable()


def test_when_an_image_is_refused_none_is_taken() -> None:
    data = training_set(image("a"))
    with pytest.raises(LabelError):
        data.put(image("b"), image("c", strokes(2)))
    assert list(data.images) == ["a"]
    assert list(data.held_out.membership) == ["a"]


# Counts.


def test_pixels_and_strokes_are_counted_over_all_images() -> None:
    data = training_set(image("a", strokes(1, 4, 1)), image("b", strokes(300, 1)))
    assert data.counts() == {1: (96, 3), 4: (32, 1), 300: (32, 1)}
    data.remove("a")
    assert data.counts() == {1: (32, 1), 300: (32, 1)}


def test_replaced_strokes_are_counted_once() -> None:
    data = training_set(image("a", strokes(1, 4)))
    data.put(image("a", strokes(1, 4, 4)))
    assert data.counts() == {1: (32, 1), 4: (64, 2)}


# Working resolutions.


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_working_images_share_the_strokes_between_learned_and_held_out(
    scale: float,
) -> None:
    data = training_set(image("a", strokes(1, 1, 1, 1, 1, 4), shape=(SIZE, SIZE, 3)))
    (working,) = data.at(scale)
    side = int(SIZE * scale)
    assert working.pixels.shape == (3, side, side)
    assert working.learned.shape == working.held_out.shape == (side, side)
    assert not ((working.learned > 0) & (working.held_out > 0)).any()
    assert working.held_out.unique().tolist() == [0, 1]
    assert working.learned.unique().tolist() == [0, 1, 2]
    # Every other row and column of pixels lies in a working pixel of its own.
    step = int(1 / scale)
    blocks = data.images["a"].labels.reshape(side, step, side, step)
    annotated = torch.from_numpy((blocks > 0).any(axis=(1, 3)))
    assert torch.equal((working.learned + working.held_out) > 0, annotated)


def test_a_working_pixel_of_both_is_held_out() -> None:
    labels = np.zeros((SIZE, SIZE), np.uint16)
    labels[:, ::2] = 4  # two strokes in each working pixel
    data = training_set(image("a", labels))
    (working,) = data.at(0.25)
    members = data.held_out.membership["a"].reshape(6, 4, 6, 4)
    expected = torch.from_numpy((members == HELD_OUT).any(axis=(1, 3)))
    assert torch.equal(working.held_out > 0, expected)
    assert torch.equal(working.learned > 0, ~expected)


def test_channels_follow_ascending_values() -> None:
    (working,) = training_set(image("a", strokes(300, 1, 4))).at(1.0)
    assert working.learned[10, [1, 5, 9]].tolist() == [3, 1, 2]


def test_pixels_are_normalised_and_averaged() -> None:
    data = training_set(image("a"))
    means = data.images["a"].pixels.reshape(12, 2, 12, 2, 3).mean(axis=(1, 3)) / 255
    (working,) = data.at(0.5)
    np.testing.assert_allclose(working.pixels.permute(1, 2, 0), means, atol=1e-6)


def test_new_pixels_of_an_image_are_seen() -> None:
    data = training_set(image("a"))
    (before,) = data.at(0.5)
    dark = TrainingImage("a", np.zeros((SIZE, SIZE, 3), np.uint8), strokes(1, 4))
    data.put(dark)
    (after,) = data.at(0.5)
    assert before.pixels.any()
    assert not after.pixels.any()


def test_images_come_at_the_pixel_size_of_the_first() -> None:
    data = training_set(
        image("a", um_per_px=0.5), image("finer", um_per_px=0.25), image("unknown")
    )
    sizes = [each.learned.shape for each in data.at(1.0)]
    assert sizes == [(24, 24), (12, 12), (24, 24)]
    assert [each.pixels.shape[1:] for each in data.at(1.0)] == sizes
    assert data.working_pixels(1.0) == 24 * 24 + 12 * 12 + 24 * 24


def test_a_pixel_size_that_becomes_known_later_is_used() -> None:
    reference, other = image("a", um_per_px=0.5), image("b")
    data = training_set(reference, other)
    data.at(1.0)
    data.put(TrainingImage("b", other.pixels, other.labels, um_per_px=0.25))
    assert data.working("b", 1.0).pixels.shape == (3, 12, 12)
    assert data.working("b", 1.0).learned.shape == (12, 12)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.37, 0.25, 1.3])
def test_an_image_in_bands_is_the_image_at_once(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training_set(image("a", shape=(SIZE, SIZE, 3))).pixels_at("a", scale)
    monkeypatch.setattr(training_set_module, "BAND_PX", 5 * SIZE)
    data = training_set(image("a", shape=(SIZE, SIZE, 3)))
    parts = data.pixels_in_parts("a", scale)
    n_breaks = 0
    while (found := advance(parts)) is None:
        n_breaks += 1
    assert n_breaks >= 3
    assert torch.equal(found, whole)
    assert data.pixels_at("a", scale) is found


def test_an_image_that_is_given_up_half_way_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_set_module, "BAND_PX", 5 * SIZE)
    data = training_set(image("a"))
    parts = data.pixels_in_parts("a", 0.5)
    assert advance(parts) is None
    data.put(TrainingImage("a", 255 - image("a").pixels, strokes(1, 4)))
    parts.close()
    fresh = training_set(TrainingImage("a", 255 - image("a").pixels, strokes(1, 4)))
    assert torch.equal(data.pixels_at("a", 0.5), fresh.pixels_at("a", 0.5))


def test_images_of_a_scale_that_was_given_up_are_computed_again_when_asked() -> None:
    data = training_set(image("a", um_per_px=0.5), image("b", um_per_px=0.25))
    before = [each.pixels for each in data.at(0.5)]
    data.forget_scale(0.5)
    after = [each.pixels for each in data.at(0.5)]
    for old, new in zip(before, after, strict=True):
        assert old is not new
        assert torch.equal(old, new)


# Dense images.


def dense(name: str, *values: int) -> TrainingImage:
    return image(name, strokes(*(values or (1, 4))), dense=True)


def roles(data: TrainingSet) -> dict[str, set[int]]:
    """Give the memberships of the annotated pixels of each image."""
    return {
        name: set(data.held_out.membership[name][each.labels > 0].tolist())
        for name, each in data.images.items()
    }


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (5, 1), (10, 2)])
def test_a_fifth_of_the_dense_images_is_held_out_whole(
    count: int, held_out: int
) -> None:
    data = training_set(*(dense(f"d{index}") for index in range(count)))
    found = list(roles(data).values())
    assert found.count({HELD_OUT}) == held_out
    assert found.count({LEARNED}) == count - held_out


def test_where_nothing_is_to_be_held_out_all_is_learned() -> None:
    images = [image(f"s{n}") for n in range(6)] + [dense(f"d{n}") for n in range(6)]
    data = TrainingSet(
        images, CLASSES, Normalisation("range", 0, 255), 0, holds_out=False
    )
    assert set().union(*roles(data).values()) == {LEARNED}
    data.put(image("s0", strokes(1, 4, 300)), dense("d0", 1, 4, 300), image("new"))
    data.remove("d1")
    assert set().union(*roles(data).values()) == {LEARNED}
    assert not data.has_held_out


def test_dense_images_that_come_one_by_one_are_held_out_too() -> None:
    data = training_set(dense("d0"))
    before = roles(data)
    for index in range(1, 10):
        data.put(dense(f"d{index}"))
        after = roles(data)
        assert {name: after[name] for name in before} == before
        before = after
    assert list(before.values()).count({HELD_OUT}) == 2


def test_the_seed_decides_which_dense_images_are_held_out() -> None:
    images = [dense(f"d{index}") for index in range(10)]
    chosen = []
    for seed in (0, 0, 1, 2, 3):
        found = roles(training_set(*images, seed=seed))
        chosen.append({name for name, role in found.items() if role == {HELD_OUT}})
    assert chosen[0] == chosen[1]
    assert any(others != chosen[0] for others in chosen[2:])


def test_more_paint_in_a_dense_image_keeps_its_role() -> None:
    data = training_set(*(dense(f"d{index}") for index in range(5)))
    before = roles(data)
    data.put(*(dense(f"d{index}", 1, 4, 300, 300) for index in range(5)))
    assert roles(data) == before


def test_a_dense_image_without_a_label_is_not_the_one_held_out() -> None:
    for seed in range(5):
        empty = image("empty", strokes(), dense=True)
        data = training_set(dense("full"), empty, seed=seed)
        assert roles(data) == {"full": {LEARNED}, "empty": set()}


def test_a_dense_image_may_be_held_out_once_it_is_annotated() -> None:
    empty = image("later", strokes(), dense=True)
    data = training_set(dense("full"), empty)
    data.put(dense("later"))
    assert roles(data) == {"full": {LEARNED}, "later": {HELD_OUT}}


def test_a_learned_image_that_is_declared_dense_stays_learned() -> None:
    labels = strokes(1, 1, 1, 1, 1)
    data = training_set(image("a", labels), dense("d"))
    assert roles(data)["a"] == {LEARNED, HELD_OUT}
    data.put(image("a", labels, dense=True))
    assert roles(data)["a"] == {LEARNED}


def test_what_is_held_out_is_learned_when_nothing_else_is_dense_any_more() -> None:
    data = training_set(dense("d0"), dense("d1"))
    (learned,) = (name for name, role in roles(data).items() if role == {LEARNED})
    data.remove(learned)
    assert list(roles(data).values()) == [{LEARNED}]
