"""What a CUDA device computes is what a CPU does, but for rounding."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from napari_sparseseg import api
from napari_sparseseg.learning.balancing import Balancing, weight_map
from napari_sparseseg.samples import tissue_phantom

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("balancing", get_args(Balancing))
def test_weights_are_those_of_a_cpu(balancing: Balancing) -> None:
    labels = torch.from_numpy(tissue_phantom(0, (64, 64)).labels.astype(np.int64))[None]
    weights = weight_map(labels.cuda(), balancing)
    assert weights.device.type == "cuda"
    torch.testing.assert_close(weights.cpu(), weight_map(labels, balancing))


@pytest.mark.parametrize("preset", ["light", "paper"])
def test_what_was_learned_there_predicts_the_same_here(preset: Any) -> None:
    sample = tissue_phantom(0, (128, 128))
    model = api.train(
        sample.image, sample.labels, steps=30, preset=preset, device="cuda"
    )
    here, there = (
        np.asarray(api.predict(model, sample.image, device=device))
        for device in ("cpu", "cuda")
    )
    assert (here == there).mean() > 0.999
    assert sample.truth is not None
    assert (here == sample.truth).mean() > 0.6
