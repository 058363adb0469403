"""Loss balancing for sparse labels: one weight a pixel (Bokhorst 2018, section 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning.distributed import ALONE, Ranks

Balancing = Literal["none", "instance", "mini-batch"]

BALANCINGS: tuple[Balancing, ...] = get_args(Balancing)


def weight_map(labels: Tensor, balancing: Balancing, ranks: Ranks = ALONE) -> Tensor:
    """Weigh the pixels of a mini-batch so that its classes count the same.

    Within a scope of L labelled pixels and C classes, a pixel whose class has n
    pixels weighs ``L / (C * n)``. The scope is the pixel's own patch for
    ``"instance"`` (Bokhorst 2018, eq. 1) and the whole mini-batch for
    ``"mini-batch"`` (eq. 2). For ``"none"`` each labelled pixel weighs 1 (the "mask of
    valid pixels"). So the weights of a scope always sum to its labelled pixels.

    Parameters
    ----------
    labels
        (B, H, W) int64, 0 = not annotated, any other value is a class.
    balancing
        ``"none"``, ``"instance"`` or ``"mini-batch"``.
    ranks
        The processes that have the other parts of the mini-batch, whose pixels are
        counted together.

    Returns
    -------
    Tensor
        (B, H, W) float32 on the device of *labels*, 0 where nothing is annotated.

    Raises
    ------
    OptionError
        For another *balancing*.
    """
    if balancing not in BALANCINGS:
        raise OptionError(
            f"balancing is {balancing!r}; expected one of {', '.join(BALANCINGS)}.",
            balancing=balancing,
        )
    valid = labels != 0
    if balancing == "none":
        return valid.float()
    n_scopes = len(labels) if balancing == "instance" else 1
    n_values = ranks.highest(int(labels.max()) if labels.numel() else 0) + 1
    scope = torch.arange(len(labels), device=labels.device) % n_scopes
    key = scope[:, None, None] * n_values + labels
    counts = torch.bincount(key.flatten(), minlength=n_scopes * n_values)
    counts = counts.view(n_scopes, n_values)
    if balancing == "mini-batch":
        counts = ranks.sum(counts)
    counts[:, 0] = 0
    n_valid = counts.sum(dim=1, keepdim=True)
    n_classes = (counts > 0).sum(dim=1, keepdim=True)
    weights = n_valid / (n_classes * counts).clamp_min(1)
    weights[:, 0] = 0
    return weights.flatten()[key]
