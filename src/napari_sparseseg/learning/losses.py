"""Losses that know unlabelled pixels and pixel weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_cross_entropy(
    scores: Tensor, labels: Tensor, weights: Tensor, total_weight: Tensor | None = None
) -> Tensor:
    """Categorical cross-entropy l times w, ``sum(w * l) / sum(w)``.

    Divided by the weights and not by the pixels, so that its size does not depend on
    how much is annotated (Bokhorst 2018, section 3, gives ``w * l`` for each pixel).

    Parameters
    ----------
    scores
        (B, C, H, W) float, before softmax.
    labels
        (B, H, W) int64: 0 = not annotated, k + 1 = channel k.
    weights
        (B, H, W) float, of :func:`~napari_sparseseg.learning.balancing.weight_map`.
    total_weight
        ``sum(w)`` of the whole mini-batch when *scores* are a part of it; the losses
        of the parts then add up to that of the whole. Default: of *weights*.

    Returns
    -------
    Tensor
        Scalar. Without a labelled pixel it is 0, with zero gradients.
    """
    pixel_loss = F.cross_entropy(
        scores.float(), labels - 1, ignore_index=-1, reduction="none"
    )
    if total_weight is None:
        total_weight = weights.sum()
    total = torch.where(total_weight > 0, total_weight, 1)
    return (weights * pixel_loss).sum() / total
