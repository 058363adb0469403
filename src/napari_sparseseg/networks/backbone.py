"""ResNet and the feature pyramid on top of it, with or without published weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_sparseseg.errors import ImageError, ModelFileError, OptionError
from napari_sparseseg.networks.published_weights import (
    PUBLISHED,
    fetch_in_parts,
    published_path,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BackboneName = Literal["resnet18", "resnet50"]

#: P2..P5; level k has a stride of 2 ** k input pixels.
LEVELS = (2, 3, 4, 5)

#: Mean and deviation of ImageNet's channels, in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_HINT = "give torchvision's published file, a safetensors file, 'imagenet' or 'none'"


class ResNetPyramid(nn.Module):
    """ResNet with a feature pyramid (Lin et al. 2017) on its four stages.

    Parameters
    ----------
    name
        ``"resnet50"`` as in Fan 2022, section 3.2, or ``"resnet18"`` for a CPU.
    channels
        Of each level of the pyramid.
    weights
        Of the ResNet: see :func:`build_resnet`. The pyramid's are always drawn by
        torch's global generator.

    Raises
    ------
    OptionError, ModelFileError
        As :func:`build_resnet`.
    ImageError
        When called with other than one or three channels.

    Notes
    -----
    (B, C, H, W) float in [0, 1], C = 1 or 3 -> list of P2..P5, each (B, *channels*,
    ceil(H / s), ceil(W / s)) with s = 4, 8, 16, 32. One channel is repeated to three;
    ImageNet's mean and deviation are applied, whatever the weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        name: BackboneName = "resnet50",
        channels: int = 256,
        weights: str | Path = "none",
    ) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        resnet = build_resnet(name, weights)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.ModuleList(
            [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        )
        widest: int = resnet.fc.in_features
        self.pyramid = FeaturePyramidNetwork(
            [widest // 8, widest // 4, widest // 2, widest], channels
        )
        self.channels = channels
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer(
            "deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem((as_three_channels(x) - self.mean) / self.deviation)
        stages: dict[str, Tensor] = {}
        for level, stage in zip(LEVELS, self.stages, strict=True):
            x = stage(x)
            stages[f"C{level}"] = x
        return list(self.pyramid(stages).values())


def as_three_channels(images: Tensor) -> Tensor:
    """Repeat the channel of (..., 1, H, W) three times; leave (..., 3, H, W) as it is.

    Raises
    ------
    ImageError
        If there is another number of channels.
    """
    *before, n_channels, height, width = images.shape
    if n_channels not in (1, 3):
        raise ImageError(
            f"the image has {n_channels} channels, but a ResNet takes 1 or 3; choose "
            "one channel, or three.",
            n_channels=n_channels,
        )
    return images.expand(*before, 3, height, width)


def build_resnet(name: BackboneName, weights: str | Path = "none") -> Any:
    """Build torchvision's ResNet, its ``fc`` layer included.

    Parameters
    ----------
    name
        ``"resnet18"`` or ``"resnet50"``.
    weights
        ``"none"``: drawn by torch's global generator. Else see
        :func:`load_resnet_weights`.

    Raises
    ------
    OptionError
        If the name is not known.
    ModelFileError, OutputError
        If the weights cannot be had, or are those of another network.
    """
    from torchvision.models import get_model

    _check_name(name)
    resnet = get_model(name, weights=None)
    if weights != "none":
        load_resnet_weights(resnet, name, weights)
    return resnet


def _check_name(name: str) -> None:
    if name not in get_args(BackboneName):
        raise OptionError(
            f"the backbone is named {name!r}; expected one of "
            f"{', '.join(get_args(BackboneName))}.",
            name=name,
        )


def load_resnet_weights(
    resnet: nn.Module, name: BackboneName, weights: str | Path
) -> None:
    """Load published weights, or those of a file, into a ResNet in place.

    Parameters
    ----------
    resnet
        With torchvision's names; a layer ``fc``, if there is one, stays as it is.
    name
        Which ResNet it is.
    weights
        ``"imagenet"``: torchvision's published ones, downloaded on first use. Else a
        file: torchvision's published one, known by its hash, or ``.safetensors`` with
        torchvision's names.

    Raises
    ------
    ModelFileError, OutputError
        If the weights cannot be had, or are those of another network.
    """
    for _ in fetch_in_parts(name, weights):
        pass
    path = published_path(name) if weights == "imagenet" else Path(weights)
    given = {k: v for k, v in _read(name, path).items() if not k.startswith("fc.")}
    expected = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    # Old files lack the count of mini-batches, which nothing here reads.
    needed = {key for key in expected if not key.endswith("num_batches_tracked")}
    wrong = sorted((needed - {*given}) | ({*given} - {*expected})) or sorted(
        key for key in given if given[key].shape != expected[key].shape
    )
    if wrong:
        others = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        raise ModelFileError(
            f"{path} holds the weights of another network than {name}, as {wrong[0]}"
            f"{others} are missing, not known or of another shape; choose the backbone "
            f"that they are of, or {_HINT}.",
            path=str(path),
            keys=wrong,
        )
    resnet.load_state_dict(given, strict=False)


def _read(name: BackboneName, path: Path) -> Mapping[str, Tensor]:
    """Read weights without running any code of the file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if any(digest.startswith(prefix) for prefix in _prefixes()):
            published: Mapping[str, Tensor] = torch.load(
                path, map_location="cpu", weights_only=True
            )
            return published
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelFileError(
            f"the weights {path} cannot be read ({reason}); {_HINT}.", path=str(path)
        ) from error
    raise ModelFileError(
        f"{path} is no file of weights that torchvision has published for {name}, as "
        f"its SHA-256 begins with {digest[:8]} and not with "
        f"{' or '.join(PUBLISHED[name].sha256)}; {_HINT}.",
        path=str(path),
        sha256=digest,
    )


def _prefixes() -> list[str]:
    return [prefix for each in PUBLISHED.values() for prefix in each.sha256]
