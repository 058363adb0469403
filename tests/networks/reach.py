"""How far an output of a network depends on its input, found by gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def lose_no_path(network: nn.Module) -> None:
    """Let every path from input to output count, in place.

    Pooling passes the gradient to the largest pixel alone, so it is made to average;
    weights are made positive, and normalisations leave alone.
    """
    for parent in [*network.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, nn.MaxPool2d):
                pool = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
                setattr(parent, name, pool)
            elif hasattr(layer, "running_mean") or hasattr(layer, "num_groups"):
                setattr(parent, name, nn.Identity())
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def reach(score: Callable[[Tensor], Tensor], at: int, index: int, length: int) -> int:
    """Measure how far from column *at* of the input column *index* of a result depends.

    Parameters
    ----------
    score
        (1, 3, H, W) -> (1, C, H', W').
    at, index
        The columns.
    length
        Of the input, W.
    """
    x = torch.ones(1, 3, 32, length).double().requires_grad_()
    score(x)[..., index].sum().backward()
    assert x.grad is not None
    (columns,) = x.grad.abs().sum((0, 1, 2)).nonzero(as_tuple=True)
    assert columns[0] > 0
    assert columns[-1] < length - 1
    return int((columns - at).abs().max())
