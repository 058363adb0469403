"""A trained model: the head, the network, and all that is needed to use them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_sparseseg.errors import ModelFileError
from napari_sparseseg.networks.pixel_head import HeadNetwork
from napari_sparseseg.networks.registry import NetworkSpec, build_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.networks.scoring import ScoringNetwork

Part = Literal["head", "network"]


@dataclass(frozen=True)
class ModelInfo:
    """What must be known about a model to use it and to trust it.

    No file names and nothing of a patient are kept.

    Attributes
    ----------
    classes
        The classes; channel k is the k-th in ascending value.
    in_channels
        Channels of the images.
    normalisation
        How intensities become [0, 1].
    scales
        Working pixels per image pixel, of ``"head"`` and of ``"network"``.
    shown
        The part that predicts.
    network
        The network's name and options.
    um_per_px
        Pixel size of the training images in micrometres, None when unknown.
    training
        How it came about: recipe, balancing, seed, steps, label counts, scores,
        versions. JSON values only.
    """

    classes: ClassTable
    in_channels: int
    normalisation: Normalisation
    scales: Mapping[Part, float]
    shown: Part
    network: NetworkSpec
    um_per_px: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


class SegmentationModel:
    """Predicts classes: a per-pixel head, a network, and which of the two is shown.

    Attributes
    ----------
    info
        What is known about the model.
    parts
        The head and the network in evaluation mode, as far as they exist. Each takes
        (B, C, H, W) in [0, 1] at its own working resolution.
    """

    def __init__(self, info: ModelInfo, parts: Mapping[Part, ScoringNetwork]) -> None:
        self.info = info
        self.parts = {name: part.eval() for name, part in parts.items()}
        if info.shown not in self.parts:
            raise ModelFileError(
                f"the model says that its {info.shown} predicts, but holds only "
                f"{', '.join(self.parts) or 'nothing'}; train it again.",
                shown=info.shown,
            )

    @property
    def module(self) -> ScoringNetwork:
        """The part that predicts."""
        return self.parts[self.info.shown]

    @property
    def scale(self) -> float:
        """Working pixels per image pixel of the part that predicts."""
        return self.info.scales[self.info.shown]

    def showing(self, part: Part) -> SegmentationModel:
        """Return the same model with *part* predicting."""
        return SegmentationModel(dataclasses.replace(self.info, shown=part), self.parts)

    def to(self, device: str | torch.device) -> SegmentationModel:
        """Return a copy on *device*."""
        parts = {
            name: copy.deepcopy(part).to(device) for name, part in self.parts.items()
        }
        return SegmentationModel(self.info, parts)


def build_part(name: Part, info: ModelInfo) -> ScoringNetwork:
    """Build the head or the network of *info* with fresh weights."""
    n_classes = len(info.classes)
    if name == "head":
        return HeadNetwork(info.in_channels, n_classes)
    return build_network(info.network, info.in_channels, n_classes)
