"""Networks by name, their presets, and the one place where they are built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.scoring import ScoringNetwork
from napari_sparseseg.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Preset = Literal["light", "paper"]

#: Mean and deviation that bring intensities in [0, 1] to about zero and one.
CENTRE, SPREAD = 0.5, 0.25


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a network: its name and its options.

    Attributes
    ----------
    name
        A key of :data:`NETWORKS`.
    options
        Keyword arguments of that network, JSON values only.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


NETWORKS: dict[str, Callable[..., ScoringNetwork]] = {"unet": UNet}

#: ``paper`` is the U-Net of Bokhorst 2018; ``light`` is one for a CPU.
PRESETS: dict[Preset, NetworkSpec] = {
    "paper": NetworkSpec("unet", {"filters": 32, "levels": 5, "norm": "none"}),
    "light": NetworkSpec("unet", {"filters": 16, "levels": 4, "norm": "group"}),
}


class Standardised(ScoringNetwork):
    """A network that is given intensities in [0, 1] and sees them standardised.

    (B, C, H, W) -> (B, n_classes, H, W). ``stride`` and ``halo`` are those of the
    network inside.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: ScoringNetwork, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.full((in_channels, 1, 1), CENTRE))
        self.register_buffer("deviation", torch.full((in_channels, 1, 1), SPREAD))

    @property
    def stride(self) -> int:
        """Input pixels to one pixel of the deepest level."""
        return self.network.stride

    @property
    def halo(self) -> int:
        """Radius in pixels beyond which an input pixel cannot change an output."""
        return self.network.halo

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network((x - self.mean) / self.deviation)
        return scores


def build_network(spec: NetworkSpec, in_channels: int, n_classes: int) -> Standardised:
    """Build a network with fresh weights.

    Parameters
    ----------
    spec
        Name and options.
    in_channels, n_classes
        Channels of the images and of the score maps.

    Raises
    ------
    OptionError
        If the name or an option is not known.
    """
    if spec.name not in NETWORKS:
        raise OptionError(
            f"the network is named {spec.name!r}; expected one of "
            f"{', '.join(NETWORKS)}.",
            name=spec.name,
        )
    try:
        network = NETWORKS[spec.name](in_channels, n_classes, **spec.options)
    except TypeError as error:
        raise OptionError(
            f"the network {spec.name!r} cannot be built with the options "
            f"{dict(spec.options)}: {error}.",
            options=dict(spec.options),
        ) from error
    # Three times as fast in training on a CPU, and never slower on a GPU.
    return Standardised(network, in_channels).to(memory_format=torch.channels_last)
