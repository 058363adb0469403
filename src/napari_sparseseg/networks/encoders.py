"""The first layers of networks that torchvision has trained: images in, features out.

Their weights are drawn, published ones, or those of a file.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_sparseseg.errors import ImageError, ModelFileError, OptionError
from napari_sparseseg.networks.published_weights import (
    PUBLISHED,
    EncoderName,
    check_encoder_name,
    fetch_in_parts,
    published_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Mean and deviation of ImageNet's channels, in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

#: The layers that features can be taken from, by the names of the papers, and the
#: module of torchvision behind each. Of VGG16, those of ReLU.
_RESNET_LAYERS = {
    "conv1": "relu",
    "layer1": "layer1",
    "layer2": "layer2",
    "layer3": "layer3",
    "layer4": "layer4",
}
_LAYERS: dict[EncoderName, dict[str, str]] = {
    "vgg16": {
        "conv1_1": "1",
        "conv1_2": "3",
        "conv2_1": "6",
        "conv2_2": "8",
        "conv3_1": "11",
        "conv3_2": "13",
        "conv3_3": "15",
        "conv4_1": "18",
        "conv4_2": "20",
        "conv4_3": "22",
        "conv5_1": "25",
        "conv5_2": "27",
        "conv5_3": "29",
    },
    "resnet18": _RESNET_LAYERS,
    "resnet50": _RESNET_LAYERS,
}

#: The last layer of each stride: of VGG16 1, 2, 4, 8, 16, of a ResNet 2, 4, 8, 16, 32.
LEVELS: dict[EncoderName, tuple[str, ...]] = {
    "vgg16": ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"),
    "resnet18": tuple(_RESNET_LAYERS),
    "resnet50": tuple(_RESNET_LAYERS),
}

#: Layers of the published networks that no encoder has.
_CLASSIFIERS = ("fc.", "classifier.")

_HINT = "give torchvision's published file, a safetensors file, 'imagenet' or 'none'"
_DELETE = "delete the file, and it will be downloaded anew"


@dataclass(frozen=True, slots=True)
class Level:
    """What is known of the features of a level, for y as for x.

    Attributes
    ----------
    channels
        Channels of the features.
    stride
        Input pixels to one feature.
    before, after
        The feature *i* sees the input pixels from ``stride * i - before`` to
        ``stride * i + after``.
    """

    channels: int
    stride: int
    before: int
    after: int

    def field(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input pixel that some features see."""
        return self.stride * first - self.before, self.stride * last + self.after


class Encoder(nn.ModuleDict):
    """The layers of VGG16 or a ResNet up to the last one that is asked for.

    Attributes
    ----------
    name
        Which network it is of. Its modules have the names of torchvision.
    levels
        The layers that features are taken from, in the order of data.

    Raises
    ------
    ImageError
        When called with other than one or three channels.

    Notes
    -----
    (B, C, H, W) float, standardised as ImageNet, C = 1 or 3 -> a tuple of features, one
    a level, each (B, ``channels``, H / ``strides``, W / ``strides``), rounded down by
    VGG16 and up by a ResNet. One channel is repeated to three.
    """

    def __init__(
        self, name: EncoderName, modules: Mapping[str, nn.Module], levels: Sequence[str]
    ) -> None:
        ends = [_LAYERS[name][level] for level in levels]
        names = [*modules]
        last = max(map(names.index, ends))
        super().__init__({each: modules[each] for each in names[: last + 1]})
        self.name: EncoderName = name
        self.levels = tuple(levels)
        self._ends = frozenset(ends)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = as_three_channels(x)
        features = []
        for name, layer in self.items():
            x = layer(x)
            if name in self._ends:
                features.append(x)
        return tuple(features)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the features of each level."""
        return tuple(level.channels for level in self.geometry())

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels to one feature of each level."""
        return tuple(level.stride for level in self.geometry())

    @property
    def halo(self) -> tuple[int, ...]:
        """Radius, in pixels, beyond which an input pixel cannot change a feature.

        For each level, around any pixel of the ``stride`` a side that a feature stands
        for.
        """
        return tuple(
            max(level.before + level.stride - 1, level.after)
            for level in self.geometry()
        )

    @property
    def centres(self) -> tuple[float, ...]:
        """Row and column, in input pixels, that the first feature of each level is at.

        They are the centre of what it sees; the next one is a stride further.
        """
        return tuple((each.after - each.before) / 2 for each in self.geometry())

    def geometry(self) -> tuple[Level, ...]:
        """Return what follows from the layers as they are now."""
        levels = []
        channels, stride, before, after = 3, 1, 0, 0
        for name, layer in self.items():
            for path, each in layer.named_modules():
                # A shortcut sees no more than what it leads around.
                if "downsample" in path:
                    continue
                if isinstance(each, nn.Conv2d):
                    channels = each.out_channels
                elif not isinstance(each, nn.MaxPool2d):
                    continue
                size, padding, dilation, step = (
                    _one_side(value)
                    for value in (
                        each.kernel_size,
                        each.padding,
                        each.dilation,
                        each.stride,
                    )
                )
                before += padding * stride
                after += (dilation * (size - 1) - padding) * stride
                stride *= step
            if name in self._ends:
                levels.append(Level(channels, stride, before, after))
        return tuple(levels)

    def load(self, weights: str | Path | EncoderWeights) -> None:
        """Take published weights or those of a file: see `load_encoder_weights`."""
        load_encoder_weights(self, self.name, weights)


def halo_of(field: Callable[[int], tuple[int, int]], stride: int) -> int:
    """Return the radius beyond which an input pixel cannot change an output, exactly.

    Parameters
    ----------
    field
        Gives the first and the last input pixel that the output at a place depends on.
    stride
        After so many places *field* repeats itself.
    """
    return max(
        max(at - first, last - at)
        for at, (first, last) in ((at, field(at)) for at in range(stride))
    )


def _one_side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


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
            f"the image has {n_channels} channels, but this network takes 1 or 3, as "
            "its encoder does; choose one channel, or three.",
            n_channels=n_channels,
        )
    return images.expand(*before, 3, height, width)


def build_encoder(
    name: EncoderName,
    weights: str | Path = "none",
    levels: Sequence[str] | None = None,
) -> Encoder:
    """Build the first layers of a network of torchvision.

    Parameters
    ----------
    name
        ``"vgg16"``, ``"resnet18"`` or ``"resnet50"``.
    weights
        ``"none"``: drawn by torch's global generator (VGG16's as He et al. 2015, for it
        has no normalisation). Else see :func:`load_encoder_weights`.
    levels
        Layers that features are taken from, in the order of data: ``"conv1_1"`` ...
        ``"conv5_3"`` of VGG16, ``"conv1"``, ``"layer1"`` ... ``"layer4"`` of a ResNet.
        None: the last one of each stride, ``LEVELS``. What is behind the last one is
        not computed.

    Raises
    ------
    OptionError
        If the name or a level is not known.
    ModelFileError, OutputError
        If the weights cannot be had, or are those of another network.
    """
    check_encoder_name(name)
    levels = LEVELS[name] if levels is None else levels
    unknown = [level for level in levels if level not in _LAYERS[name]]
    if unknown or not levels:
        raise OptionError(
            f"{name} is to give the features of {', '.join(unknown) or 'no layer'}; "
            f"expected some of {', '.join(_LAYERS[name])}.",
            levels=[*levels],
        )
    encoder = Encoder(name, _modules(name), levels)
    if weights != "none":
        encoder.load(weights)
    return encoder


def _modules(name: EncoderName) -> dict[str, nn.Module]:
    """Return the modules of torchvision's network in the order of data."""
    from torchvision.models import get_model
    from torchvision.models.vgg import cfgs, make_layers

    if name != "vgg16":
        return dict(get_model(name, weights=None).named_children())
    # Not the whole network, whose last layers have a hundred million weights.
    layers = make_layers(cfgs["D"])
    initialise_he(layers)
    return dict(layers.named_children())


def initialise_he(module: nn.Module) -> None:
    """Give every convolution He-normal weights (fan-in) and zero bias.

    Of a transposed one the fan-in, too, is the number of weights behind an output
    pixel (He et al. 2015, section 2.2): where it doubles the size by a 2x2 kernel, the
    number of its input channels.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = layer.in_channels * math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):
                fan_in //= math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class EncoderWeights:
    """First weights of encoders, read when they are first needed, and once.

    Parameters
    ----------
    origin
        ``"none"``: drawn ones. Else see :func:`load_encoder_weights`.

    Attributes
    ----------
    are_drawn
        Whether there is nothing to read.
    """

    def __init__(self, origin: str | Path) -> None:
        self._origin = origin
        self.are_drawn = origin == "none"
        self._known: dict[Path, Mapping[str, Tensor]] = {}

    def of(self, name: EncoderName) -> tuple[Path, Mapping[str, Tensor]]:
        """Return the file of an encoder's weights, and what is in it.

        Layers that classify are left out: nothing here has them.

        Raises
        ------
        ModelFileError, OutputError
            If the weights cannot be had.
        """
        is_published = self._origin == "imagenet"
        path = published_path(name) if is_published else Path(self._origin)
        if path not in self._known:
            for _ in fetch_in_parts(name, self._origin):
                pass
            given = _read(name, path, is_published=is_published)
            self._known[path] = _without_classifier(given)
        return path, self._known[path]


def load_encoder_weights(
    encoder: nn.Module, name: EncoderName, weights: str | Path | EncoderWeights
) -> None:
    """Load published weights, or those of a file, into an encoder in place.

    Parameters
    ----------
    encoder
        With torchvision's names (those of VGG16 without ``features.``), and all of its
        layers or the first ones; its layer ``fc``, if there is one, stays as it is.
    name
        Which network it is of.
    weights
        ``"imagenet"``: torchvision's published ones, downloaded on first use. Else a
        file: torchvision's published one, known by its hash, or ``.safetensors`` with
        torchvision's names. It may hold the layers that classify too, and those behind
        the last one of *encoder*. Or either as it was read for another encoder.

    Raises
    ------
    ModelFileError, OutputError
        If the weights cannot be had, or are those of another network.
    """
    if not isinstance(weights, EncoderWeights):
        weights = EncoderWeights(weights)
    path, given = weights.of(name)
    prefix = "features." if name == "vgg16" else ""
    known = _known_of(name)
    expected = _without_classifier(encoder.state_dict(prefix=prefix))
    # Old files lack the count of mini-batches, which nothing here reads.
    needed = {key for key in expected if not key.endswith("num_batches_tracked")}
    wrong = sorted((needed - {*given}) | ({*given} - {*known})) or sorted(
        key for key in given if given[key].shape != known[key].shape
    )
    if wrong:
        others = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        raise ModelFileError(
            f"{path} holds the weights of another network than {name}, as {wrong[0]}"
            f"{others} are missing, not known or of another shape; choose a network or "
            f"backbone that has their encoder, or {_HINT}.",
            path=str(path),
            keys=wrong,
        )
    taken = {key.removeprefix(prefix): given[key] for key in given if key in expected}
    encoder.load_state_dict(taken, strict=False)


def encoder_of(weights: Mapping[str, Tensor]) -> EncoderName | None:
    """Return the encoder that weights, without layers that classify, are of."""
    shapes = {(key, value.shape) for key, value in weights.items()}
    for name in PUBLISHED:
        if shapes <= {(key, value.shape) for key, value in _known_of(name).items()}:
            return name
    return None


def _known_of(name: EncoderName) -> dict[str, Tensor]:
    return _without_classifier(_unweighted(name).state_dict())


def _without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in weights.items() if not k.startswith(_CLASSIFIERS)}


def _unweighted(name: EncoderName) -> nn.Module:
    """Return torchvision's whole network at once, without numbers in its weights."""
    from torchvision.models import get_model

    with torch.device("meta"):
        network: nn.Module = get_model(name, weights=None)
    return network


def _read(name: EncoderName, path: Path, *, is_published: bool) -> Mapping[str, Tensor]:
    """Read weights without running any code of the file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if any(digest.startswith(prefix) for prefix in _prefixes()):
            # Mapped, what classifies takes no memory; files of before torch 1.6, which
            # are no ZIP archives, cannot be mapped.
            published: Mapping[str, Tensor] = torch.load(
                path, map_location="cpu", weights_only=True, mmap=is_zipfile(path)
            )
            return published
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelFileError(
            f"the weights {path} cannot be read ({reason}); "
            f"{_DELETE if is_published else _HINT}.",
            path=str(path),
        ) from error
    names = ", ".join([*_known_of(name)][:2])
    own = (
        "weights of your own go into a safetensors file, under the names of "
        f"torchvision's {name} ({names}, ...), for which the README has two lines"
    )
    raise ModelFileError(
        f"{path} is no file of weights that torchvision has published for {name}, as "
        f"its SHA-256 begins with {digest[:8]} and not with "
        f"{' or '.join(PUBLISHED[name].sha256)}; {_DELETE if is_published else own}.",
        path=str(path),
        sha256=digest,
    )


def _prefixes() -> list[str]:
    return [prefix for each in PUBLISHED.values() for prefix in each.sha256]
