"""Losses that know unlabelled pixels and pixel weights."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

#: ``"ce"``: :func:`weighted_cross_entropy`; ``"dice"``: :func:`dice_loss`.
Loss = Literal["ce", "dice"]

LOSSES: tuple[Loss, ...] = get_args(Loss)

#: Added above and below the fraction of :func:`dice_loss`, in pixels.
DICE_SMOOTHING = 1.0


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


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice of V-Net, the mean over the foreground classes.

    Dice is ``(2 sum(p g) + 1) / (sum(p^2) + sum(g^2) + 1)`` with p the softmax output
    of a class and g its one-hot truth, summed over the annotated pixels of the
    mini-batch (Milletari et al. 2016, section 3; used by Fan 2022, section 3.3). The 1
    is ours: a class that is neither there nor predicted has no loss. Channel 0, the
    class with the smallest value, is the background.

    Parameters
    ----------
    scores
        (B, C, H, W) float, C >= 2, before softmax.
    labels
        (B, H, W) int64: 0 = not annotated, k + 1 = channel k.

    Returns
    -------
    Tensor
        Scalar in [0, 1). Without a labelled pixel it is 0, with zero gradients.
    """
    foreground = torch.arange(2, scores.shape[1] + 1, device=labels.device)
    truth = labels[:, None] == foreground[:, None, None]
    annotated = labels[:, None] != 0
    probabilities = scores.float().softmax(dim=1)[:, 1:] * annotated
    pixels = (0, 2, 3)
    overlap = (probabilities * truth).sum(pixels)
    sizes = (probabilities**2).sum(pixels) + truth.sum(pixels)
    dice = (2 * overlap + DICE_SMOOTHING) / (sizes + DICE_SMOOTHING)
    return 1 - dice.mean()
