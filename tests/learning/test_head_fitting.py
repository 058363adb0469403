"""Fitting the per-pixel head: balanced, reproducible, honest about held-out pixels."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Generator, Tensor

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.head_fitting import (
    HeadOptions,
    fit_in_parts,
    update_head,
)
from napari_sparseseg.learning.head_training import HeadTraining
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.pixel_head import PixelHead

QUICK = HeadOptions(steps=60, batch=256)


def fit(features: Tensor, labels: Tensor, n_classes: int, seed: int = 0) -> PixelHead:
    generator = Generator().manual_seed(seed)
    return finish(fit_in_parts(features, labels, n_classes, QUICK, generator))


def rings(count: int = 600) -> tuple[Tensor, Tensor]:
    """Give points (count, 2) around 0 and whether they lie outside of a circle."""
    points = torch.randn(count, 2, generator=Generator().manual_seed(0))
    return points, (points.norm(dim=1) > 1.2).long()


def test_it_learns_what_no_straight_line_separates() -> None:
    points, outside = rings()
    head = fit(points[::2], outside[::2], 2)
    predicted = head(points[1::2]).argmax(dim=1)
    assert (predicted == outside[1::2]).float().mean() > 0.9


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    # Two Gaussians two deviations apart, a hundred to one: the best boundary between
    # equally likely classes lies half-way, at 1, where each is right in 84 %.
    generator = Generator().manual_seed(0)
    common = torch.randn(5000, 1, generator=generator)
    rare = torch.randn(50, 1, generator=generator) + 2
    labels = torch.cat([torch.zeros(5000), torch.ones(50)]).long()
    head = fit(torch.cat([common, rare]), labels, 2)
    line = torch.linspace(-1, 3, 401)[:, None]
    boundary = line[head(line).argmax(dim=1) == 1].min()
    assert boundary.item() == pytest.approx(1, abs=0.4)


def test_features_are_standardised_and_a_constant_one_does_no_harm() -> None:
    points, outside = rings()
    features = torch.cat(
        [points * 1000 + 5000, torch.full((len(points), 1), 7.0)], dim=1
    )
    head = fit(features, outside, 2)
    torch.testing.assert_close(head.mean, features.mean(dim=0))
    deviation = features.std(dim=0, correction=0)
    assert deviation[2] == 0
    deviation[2] = 1
    torch.testing.assert_close(head.deviation, deviation, atol=1e-5, rtol=1e-5)
    scores = head(features)
    assert torch.isfinite(scores).all()
    assert (scores.argmax(dim=1) == outside).float().mean() > 0.9


def test_what_no_stroke_looks_like_is_not_ever_more_certain() -> None:
    points, outside = rings()
    head = fit(points, outside, 2)
    far, farther = head(torch.tensor([[1e3, 1e3], [1e6, 1e6]]))
    torch.testing.assert_close(far, farther)


def test_a_class_without_a_pixel_is_not_predicted_among_those_with_some() -> None:
    points, outside = rings()
    head = fit(points, outside * 2, 3)
    assert head(points).shape == (len(points), 3)
    assert set(head(points).argmax(dim=1).tolist()) == {0, 2}


def test_one_pixel_of_each_class_is_enough() -> None:
    head = fit(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1]), 2)
    assert head(torch.tensor([[0.1, 0.9], [0.9, 0.1]])).argmax(dim=1).tolist() == [0, 1]


def test_the_seed_decides_and_torchs_own_random_state_is_left_alone() -> None:
    points, outside = rings()
    before = torch.get_rng_state()
    first, same, other = (
        fit(points, outside, 2, seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.items():
        assert torch.equal(value, same[name])
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_the_result_is_ready_to_predict() -> None:
    head = fit(*rings(), 2)
    assert not head.training
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_an_update_learns_what_is_new_and_leaves_the_head_as_it_was() -> None:
    points, outside = rings()
    near = points[:, 0] < 0.5
    head = fit(points[near], outside[near], 2)
    before = copy.deepcopy(head.state_dict())

    def accuracy(of: PixelHead) -> float:
        return float((of(points[~near]).argmax(1) == outside[~near]).float().mean())

    options = dataclasses.replace(QUICK, update_steps=40)
    updated = update_head(head, points, outside, options, Generator().manual_seed(0))
    assert accuracy(head) < 0.5 < 0.7 < accuracy(updated)
    assert not updated.training
    assert not any(each.requires_grad for each in updated.parameters())
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name])


# On a training set.


def striped(brightness: int = 180) -> TrainingImage:
    """Give an image of dark and bright stripes with six strokes on each kind."""
    pixels = np.full((96, 96, 3), 60, np.uint8)
    pixels[:, 48:] = brightness
    noise = np.random.default_rng(0).integers(-30, 30, pixels.shape)
    labels = np.zeros((96, 96), np.uint8)
    for row in range(6, 96, 16):
        labels[row : row + 3, 8:40] = 3
        labels[row : row + 3, 56:88] = 5
    return TrainingImage("striped", (pixels + noise).astype(np.uint8), labels)


def training_set(*images: TrainingImage) -> TrainingSet:
    classes = ClassTable.from_values([3, 5])
    return TrainingSet(images, classes, Normalisation("range", 0, 255), seed=0)


OPTIONS = TrainingOptions(head=QUICK)


def test_the_score_is_that_of_held_out_strokes_alone() -> None:
    data = training_set(striped())
    fitted, event = HeadTraining(data, OPTIONS).fit(data)
    assert event.score is not None
    assert event.score.strokes == {3: 1, 5: 1}
    (working,) = data.at(event.scale)
    held_out = working.held_out > 0
    assert fitted.judged is not None
    guesses = fitted.judged(working.pixels[None])[0].argmax(dim=0) + 1
    dice = f1_score(working.held_out[held_out], guesses[held_out], average=None)
    assert list(event.score.dice.values()) == pytest.approx(dice.tolist())
    assert event.score.overall == pytest.approx(dice.mean())
    assert event.score.overall > 0.9


def test_the_scale_that_scores_best_is_taken_and_kept() -> None:
    data = training_set(striped())
    training = HeadTraining(data, OPTIONS)
    fitted, event = training.fit(data)
    assert event.score is not None
    assert event.score.overall == event.scores_by_scale[event.scale]
    assert event.score.overall == max(event.scores_by_scale.values())
    assert fitted.scale == event.scale
    _, again = training.fit(data)
    assert again.scores_by_scale == {event.scale: event.score.overall}


def test_the_judged_head_has_not_seen_what_is_held_out() -> None:
    """Held-out strokes may say what they like: the judged head stays as it is."""
    data = training_set(striped())
    options = dataclasses.replace(OPTIONS, scale=1.0)
    honest, truly = HeadTraining(data, options).fit(data)
    held_out = data.held_out.membership["striped"] == 2
    labels = data.images["striped"].labels.copy()
    labels[held_out] = 8 - labels[held_out]
    data.put(dataclasses.replace(data.images["striped"], labels=labels))
    lied_to, falsely = HeadTraining(data, options).fit(data)

    def differs(one: PixelHead, two: PixelHead) -> bool:
        pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
        return any(not torch.equal(a, b) for a, b in pairs)

    assert honest.judged is not None
    assert lied_to.judged is not None
    assert not differs(honest.judged.head, lied_to.judged.head)
    assert differs(honest.network.head, lied_to.network.head)
    assert truly.score is not None
    assert falsely.score is not None
    assert falsely.score.overall < 0.1 < 0.9 < truly.score.overall


def test_features_that_were_kept_are_those_of_now() -> None:
    """Strokes, pixels and classes that change are seen by a head that fits again."""
    options = dataclasses.replace(OPTIONS, scale=0.5)
    data = training_set(striped())
    training = HeadTraining(data, options)

    def assert_up_to_date() -> None:
        fitted, _ = training.fit(data)
        fresh, _ = HeadTraining(data, options).fit(data)
        for name, value in fresh.network.state_dict().items():
            assert torch.equal(value, fitted.network.state_dict()[name])

    assert_up_to_date()
    changed = striped(brightness=100)
    changed.labels[80:90, 50:60] = 3
    data.put(changed)
    assert_up_to_date()
    data.classes = ClassTable.from_values([1, 3, 5])
    assert_up_to_date()


def test_without_held_out_strokes_there_is_no_score() -> None:
    labels = striped().labels.copy()
    labels[50:] = 0
    data = training_set(dataclasses.replace(striped(), labels=labels))
    _, event = HeadTraining(data, OPTIONS).fit(data)
    assert event.score is None
    assert not event.scores_by_scale
    assert event.scale == 0.5


def test_new_strokes_are_shown_by_the_last_head_before_one_is_fitted_anew() -> None:
    """At first, and with other classes, there is no head to go on from."""
    options = dataclasses.replace(OPTIONS, scale=1.0)
    image = striped()
    image.pixels[57:70, :48] = (60, 250, 60)
    data = training_set(image)
    training = HeadTraining(data, options)

    def heads() -> list[PixelHead]:
        parts = training.fit_in_parts(data)
        return [part.network.head for part in parts if part is not None]

    (first,) = heads()
    place = np.s_[60:64, 8:40]
    (working,) = data.at(1.0)
    features = FixedFeatures(3)(working.pixels[None])[0].permute(1, 2, 0)[place]
    guess = int(first(features).argmax(dim=2).flatten().mode().values)
    labels = data.images["striped"].labels.copy()
    labels[place] = data.classes.values[1 - guess]
    data.put(dataclasses.replace(data.images["striped"], labels=labels))
    for head in heads():
        assert (head(features).argmax(dim=2) == 1 - guess).float().mean() > 0.9
    data.classes = ClassTable.from_values([1, 3, 5])
    assert len(heads()) == 1
