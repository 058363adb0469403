"""A trained model: the head, the network, and all that is needed to use them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_sparseseg.errors import ModelFileError
from napari_sparseseg.networks.pixel_head import HeadNetwork
from napari_sparseseg.networks.pretrained_features import PretrainedFeatures
from napari_sparseseg.networks.registry import NetworkSpec, build_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.inputs.normalisation import Normalisation
    from napari_sparseseg.networks.network_names import HeadFeatures
    from napari_sparseseg.networks.scoring import ScoringNetwork

Part = Literal["head", "network"]
Shown = Literal["head", "network", "both"]


#: The parts behind what is shown.
PARTS_OF: dict[Shown, tuple[Part, ...]] = {
    "head": ("head",),
    "network": ("network",),
    "both": ("head", "network"),
}


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
        The part that predicts; ``"both"``: the mean of their class probabilities.
    network
        The network's name and options.
    head_features
        What the head looks at.
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
    shown: Shown
    network: NetworkSpec
    head_features: HeadFeatures = "fixed"
    um_per_px: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


class SegmentationModel:
    """Predicts classes: by a per-pixel head, a network, or the mean of both.

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
        missing = set(PARTS_OF[info.shown]) - self.parts.keys()
        if missing:
            raise ModelFileError(
                f"the model is to predict with {' and '.join(PARTS_OF[info.shown])}, "
                f"but has no {' and no '.join(sorted(missing))}; train it again.",
                shown=info.shown,
            )

    @property
    def predicting(self) -> list[tuple[ScoringNetwork, float]]:
        """The parts that predict and their working pixels per image pixel."""
        names = PARTS_OF[self.info.shown]
        return [(self.parts[name], self.info.scales[name]) for name in names]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(next(iter(self.parts.values())).parameters()).device

    def showing(self, shown: Shown) -> SegmentationModel:
        """Return the same model with the head, the network or both predicting."""
        info = dataclasses.replace(self.info, shown=shown)
        return SegmentationModel(info, self.parts)

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
        pretrained = None
        if info.head_features != "fixed":
            pretrained = PretrainedFeatures(info.head_features)
        return HeadNetwork(info.in_channels, n_classes, pretrained)
    return build_network(info.network, info.in_channels, n_classes)
