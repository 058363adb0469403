"""Batch normalisation that may meet a single value a channel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LenientBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that learns from a single value a channel, too.

    That is what is left of one image where it is pooled, or no larger than the stride.
    A single value has no variance, and torch refuses it. Here it is normalised by the
    running statistics, which stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.numel() > self.num_features:
            return super().forward(input)
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
        )


def learn_from_single_values(network: nn.Module) -> None:
    """Make each new batch normalisation in a network a lenient one, in place."""
    for parent in [*network.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, LenientBatchNorm(layer.num_features))
