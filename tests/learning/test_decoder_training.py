"""A decoder that learns from cached features, while its encoder rests."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.feature_cache import CachedEncoder, FeatureCacheOptions
from napari_sparseseg.learning.feature_patches import bytes_needed
from napari_sparseseg.learning.network_training import NetworkTraining
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.learning.trainer import Trainer
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.encoders import Encoder
from napari_sparseseg.networks.registry import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sparseseg.learning.feature_cache import FeatureCacheUse
    from napari_sparseseg.learning.loss_names import Loss

RECIPE = dataclasses.replace(
    RECIPES["live"], batch=4, patch_px=16, warm_up=0, learning_rate=3e-3
)

CLASSES = ClassTable.from_values([1, 4])


def training_set(rows: tuple[int, ...] = (4, 20)) -> TrainingSet:
    """Give an image whose bright half is of class 4, with a stroke of each class."""
    pixels = np.random.default_rng(0).integers(0, 120, (40, 44, 3)).astype(np.uint8)
    pixels[:, 22:] += 130
    labels = np.zeros((40, 44), np.uint8)
    for row in rows:
        labels[row : row + 3, 3:18], labels[row : row + 3, 26:40] = 1, 4
    return TrainingSet(
        [TrainingImage("image", pixels, labels)],
        CLASSES,
        Normalisation("range", 0, 255),
        seed=0,
        holds_out=False,
    )


def training(
    folder: Path,
    *,
    use: FeatureCacheUse = "on",
    budget_bytes: int = 1 << 30,
    frozen: bool = True,
    seed: int = 0,
    **options: Any,
) -> NetworkTraining:
    data = training_set()
    wishes = TrainingOptions(
        network=NetworkSpec("vgg-fcn-1", {"narrowing": 16}),
        freeze_encoder=frozen,
        recipe=RECIPE,
        balancing="none",
        seed=seed,
        feature_cache=FeatureCacheOptions(use, folder, budget_bytes),
        **options,
    )
    generator = Generator().manual_seed(seed)
    return NetworkTraining(data, data.at(1.0), 1.0, wishes, generator)


def weights(trained: NetworkTraining) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in trained.network.state_dict().items()}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the sizes of what encoders are given, as it goes on."""
    sizes: list[tuple[int, ...]] = []
    forward: Callable[..., Any] = Encoder.forward

    def counted(self: Encoder, x: Tensor) -> Any:
        sizes.append(tuple(x.shape))
        return forward(self, x)

    monkeypatch.setattr(Encoder, "forward", counted)
    return sizes


def test_only_the_decoder_learns_and_the_encoder_runs_once_an_orientation(
    tmp_path: Path, encoded: list[tuple[int, ...]]
) -> None:
    trained = training(tmp_path)
    assert trained.uses_feature_cache
    before = weights(trained)
    losses = [trained.step() for _ in range(60)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    changed = {
        name for name, now in weights(trained).items() if not now.equal(before[name])
    }
    assert changed
    assert not any("encoder" in name for name in changed)
    assert sorted(encoded) == [(1, 3, 40, 44)] * 4 + [(1, 3, 44, 40)] * 4

    with torch.no_grad():
        found = trained.network(training_set().pixels_at("image", 1.0)[None])
    encoded.clear()
    assert bool((found.argmax(dim=1)[0, :, :18] == 0).float().mean() > 0.9)
    trained.see(training_set((4, 20, 30)).at(1.0))  # new strokes, the same image
    training(tmp_path).step()
    trained.step()
    assert not encoded


def test_features_are_kept_only_of_an_encoder_that_does_not_learn(
    tmp_path: Path,
) -> None:
    assert training(tmp_path, use="auto").uses_feature_cache
    assert not training(tmp_path, use="off").uses_feature_cache
    assert not training(tmp_path, frozen=False).uses_feature_cache


def test_the_budget_is_that_of_all_networks_and_the_head_together(
    tmp_path: Path,
) -> None:
    images = training_set().at(1.0)
    trained = training(tmp_path, use="auto")
    needed = bytes_needed(images, trained.network, RECIPE.augmentation)
    for others, head_bytes, fits in (
        ([], 0, True),
        (images, 0, True),
        (images, 1, False),
        ([*images, *images], 0, False),
        ([], needed + 1, False),
    ):
        trained = training(tmp_path, use="auto", budget_bytes=2 * needed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the features of all images")
            trained.see(images, others, head_bytes)
        assert trained.uses_feature_cache == fits


def test_networks_of_several_resolutions_share_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = [1.0, 0.5]
    monkeypatch.setattr(Trainer, "_network_scales", lambda _: scales)
    data = training_set()
    images = [image for scale in scales for image in data.at(scale)]
    alone = training(tmp_path)
    needed = bytes_needed(images, alone.network, RECIPE.augmentation)
    for budget_bytes, fits in ((needed, True), (needed - 1, False)):
        options = dataclasses.replace(
            alone.options,
            head_start=False,
            feature_cache=FeatureCacheOptions("auto", tmp_path, budget_bytes),
        )
        trainer = Trainer(data, options)
        later = Trainer(training_set(), options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the features of all images")
            list(trainer.run(1))
            later.load_state(*trainer.state())
            trainer.put(*data.images.values())
            list(trainer.run(1))
        for each in (*trainer.networks, *later.networks):
            assert each.uses_feature_cache == fits


def test_patches_are_drawn_as_ever_where_there_is_no_room_for_features(
    tmp_path: Path,
) -> None:
    # Eight times some 40 x 44 pixels, and a little for each file.
    few = training(tmp_path, use="on", budget_bytes=300_000)
    assert few.uses_feature_cache
    with pytest.warns(UserWarning, match=r"all images need .* more than the 0.3 MiB"):
        trained = training(tmp_path, use="auto", budget_bytes=300_000)
    assert not trained.uses_feature_cache
    trained.step()
    with pytest.warns(UserWarning, match=r"0.1 MiB .* have all augmentation"):
        trained = training(tmp_path, use="on", budget_bytes=1 << 16)
    assert not trained.uses_feature_cache
    trained.step()


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_a_batch_in_parts_moves_the_decoder_as_the_whole_does(
    tmp_path: Path, loss: Loss
) -> None:
    whole, parts = training(tmp_path, loss=loss), training(tmp_path, loss=loss)
    parts.micro_batch = 1
    assert whole.step() == pytest.approx(parts.step(), rel=1e-5)
    for one, two in zip(
        whole.network.parameters(), parts.network.parameters(), strict=True
    ):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, atol=1e-5, rtol=1e-3)


def test_there_are_breaks_while_a_batch_is_drawn(
    tmp_path: Path, encoded: list[tuple[int, ...]]
) -> None:
    trained = training(tmp_path, micro_batch=4)
    breaks = sum(1 for _ in trained.gather())
    assert encoded
    assert breaks == RECIPE.batch - 1 + len(encoded)


def test_a_new_stroke_costs_no_new_look_at_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = training_set()
    trained = training(tmp_path)
    trained.see(data.at(1.0))
    for _ in range(10):
        trained.step()
    image = data.images["image"]
    labels = image.labels.copy()
    labels[30:33, 3:18] = 1
    data.put(dataclasses.replace(image, labels=labels))
    monkeypatch.delattr(CachedEncoder, "key")
    trained.see(data.at(1.0))
    trained.step()


def test_stopped_and_taken_up_it_learns_the_same(tmp_path: Path) -> None:
    through, stopped = training(tmp_path), training(tmp_path)
    for _ in range(4):
        through.step()
    for _ in range(2):
        stopped.step()
    # With other first weights, and so with another encoder.
    later = training(tmp_path, seed=5)
    later.load_state(*copy.deepcopy(stopped.state()))
    later._generator.set_state(stopped._generator.get_state())
    for _ in range(2):
        later.step()
    expected = weights(through)
    for name, value in weights(later).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
