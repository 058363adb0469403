"""What is held out is scored for each image alone, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.judge import Judge
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

CLASSES = ClassTable().add("background").add("gland")

#: What is predicted of the eight held-out pixels of each image, as channels.
PREDICTED = {"a": [0, 0, 0, 0, 1, 1, 0, 0], "b": [0, 0, 0, 0, 1, 1, 1, 1], "c": []}


def test_each_image_has_its_own_mean_dice(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1, :4], labels[2, :4] = 1, 2
    images = [
        TrainingImage(name, np.zeros((8, 8), np.uint8), labels) for name in PREDICTED
    ]
    data = TrainingSet(images, CLASSES, Normalisation("range", 0, 255), 0)
    for name in ("a", "b"):
        data.held_out.hold_out_image(name, labels)

    def ask(
        self: Judge, network: Any, scale: float, places: Sequence[Any]
    ) -> Generator[None, None, Tensor]:
        yield
        channels = [channel for name in PREDICTED for channel in PREDICTED[name]]
        return torch.nn.functional.one_hot(torch.tensor(channels), 2).float()

    monkeypatch.setattr(Judge, "_ask", ask)
    judge = Judge(data, "cpu")
    judge.see(None)
    scores = judge.score(None, 1.0)  # type: ignore[arg-type]
    # Of a: background 2 * 4 / (4 + 6), gland 2 * 2 / (4 + 2); of c nothing is held out.
    expected = {"a": (8 / 10 + 4 / 6) / 2, "b": 1.0}
    assert judge.by_image == {"network": pytest.approx(expected)}
    whole = scores["network"]
    assert whole is not None
    assert whole.overall == pytest.approx((16 / 18 + 12 / 14) / 2)
