"""Fitting the per-pixel head on labelled pixels: a result within seconds."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from napari_sparseseg.learning.parts import finish
from napari_sparseseg.networks.pixel_head import PixelHead

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterator


#: Steps between two breaks: a sixth of a second on one core.
PART_STEPS = 100

#: Features that deviate less than this are taken as constant.
CONSTANT = 1e-5


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How the head is fitted: AdamW with one cycle of the learning rate.

    Counted in steps, not seconds, so that the result does not depend on the machine's
    load; 300 steps take about half a second on one core.

    Attributes
    ----------
    steps, learning_rate
        Of a fit from the start.
    update_steps, update_rate
        Of an update, which goes on from a head that knows most strokes.
    batch
        Pixels a step.
    weight_decay
        Of AdamW.
    """

    steps: int = 300
    learning_rate: float = 5e-3
    update_steps: int = 40
    update_rate: float = 2e-3
    batch: int = 2048
    weight_decay: float = 1e-2


def fit_in_parts(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    options: HeadOptions,
    generator: Generator,
) -> Parts[None, None, PixelHead]:
    """Fit a per-pixel head on labelled pixels, every class drawn equally often.

    There is a break every ``PART_STEPS`` steps.

    Parameters
    ----------
    features
        (N, F) float, of the labelled pixels.
    labels
        (N,) int64, channel indices in [0, *n_classes*); N >= 1.
    n_classes
        Output channels; classes without a pixel get no draw.
    options
        Steps, batch, learning rate.
    generator
        On the CPU; draws weights and batches.

    Returns
    -------
    PixelHead
        In evaluation mode, on the device of *features*.
    """
    with torch.random.fork_rng(devices=[]):
        head = PixelHead(features.shape[1], n_classes)
    _initialise(head, generator)
    head.to(features.device)
    head.mean.copy_(features.mean(dim=0))
    deviation = features.std(dim=0, correction=0)
    # A feature that is the same at all strokes says nothing of them.
    head.deviation.copy_(torch.where(deviation > CONSTANT, deviation, 1))
    return _learn(head, features, labels, options, generator)


def update_head(
    head: PixelHead,
    features: Tensor,
    labels: Tensor,
    options: HeadOptions,
    generator: Generator,
) -> PixelHead:
    """Return a head of the strokes of now, from one that knows most of them.

    It is there in an eighth of the time of a fit, and nearly as good; *head* stays as
    it is. Parameters as in :func:`fit_in_parts`.
    """
    updated = copy.deepcopy(head).requires_grad_(True)
    options = replace(
        options, steps=options.update_steps, learning_rate=options.update_rate
    )
    return finish(_learn(updated, features, labels, options, generator))


def _learn(
    head: PixelHead,
    features: Tensor,
    labels: Tensor,
    options: HeadOptions,
    generator: Generator,
) -> Parts[None, None, PixelHead]:
    head.train()
    pixels_of = [
        pixels
        for channel in range(head.n_classes)
        if len(pixels := (labels == channel).nonzero()[:, 0])
    ]
    share = max(1, options.batch // len(pixels_of))
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps
    )
    for start in range(0, options.steps, PART_STEPS):
        if start:
            yield
        with _one_thread():
            for _ in range(min(PART_STEPS, options.steps - start)):
                draw = torch.cat(
                    [
                        pixels[
                            torch.randint(len(pixels), (share,), generator=generator)
                        ]
                        for pixels in pixels_of
                    ]
                )
                optimiser.zero_grad()
                F.cross_entropy(head(features[draw]), labels[draw]).backward()
                optimiser.step()
                schedule.step()
    return head.eval().requires_grad_(False)


def _initialise(head: PixelHead, generator: Generator) -> None:
    """Draw He-normal weights from *generator*."""
    for layer in head.layers:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(
                layer.weight, nonlinearity="relu", generator=generator
            )
            torch.nn.init.zeros_(layer.bias)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: such small steps gain nothing from more.

    With more they wait for each other at every step, which on a machine that others use
    too can take a hundred times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
