"""VGG16 with transposed convolutions (Abdulhamid, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.blocks import dropout_layer
from napari_sparseseg.networks.encoders import (
    build_encoder,
    halo_of,
    initialise_he,
)
from napari_sparseseg.networks.scoring import EncoderDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution that keeps height and width: side of its kernel, its filters."""

    kernel: int
    filters: int


@dataclass(frozen=True, slots=True)
class Doubling:
    """A transposed 2x2 convolution that doubles height and width: its filters."""

    filters: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layers of an experiment of the paper, in the order of data.

    Attributes
    ----------
    cut
        The last layer of VGG16.
    decoder
        The layers behind it, but for the last one, a 3x3 convolution to the classes.
    """

    cut: str
    decoder: Sequence[Convolution | Doubling]


#: Figure 3: before the second pooling, at half the size of the image.
EXPERIMENT_1 = Layout(
    "conv2_2",
    (Doubling(128), Convolution(11, 64), Convolution(9, 48), Convolution(3, 32)),
)

#: Figure 4.
EXPERIMENT_2 = Layout(
    "conv2_2",
    (Doubling(128), Convolution(9, 64), Convolution(7, 48), Convolution(5, 32)),
)

#: Figure 5.
EXPERIMENT_3 = Layout(
    "conv2_2",
    (
        Doubling(128),
        Convolution(3, 256),
        Convolution(3, 256),
        Convolution(3, 128),
        Convolution(3, 128),
        Convolution(3, 64),
        Convolution(3, 32),
    ),
)

#: Figure 6, at a quarter of the size of the image. Of the third block of VGG16 the
#: paper knows two convolutions (figure 2), torchvision three. The second doubling is a
#: plain 2x2 convolution in the figure; the text, and the size of the output, want two
#: transposed ones.
FINAL = Layout(
    "conv3_2",
    (
        Convolution(3, 256),
        Doubling(256),
        Convolution(3, 256),
        Doubling(128),
        Convolution(3, 64),
        Convolution(3, 32),
    ),
)


class VggFcn(EncoderDecoder):
    """VGG16 up to a layer, and transposed and plain convolutions behind it.

    Parameters
    ----------
    layout
        One of the four experiments.
    in_channels
        See the base class.
    n_classes
        Channels of the output, one score map a class.
    narrowing
        Divides the filters of the decoder; 1 as in the paper, more for a CPU.
    dropout
        Probability with which a feature is left out before the last layer, while
        learning.

    Raises
    ------
    ImageError
        See the base class.
    OptionError
        If *narrowing* leaves no filters, or *dropout* is no probability below 1.

    Notes
    -----
    ReLU follows each layer but the last (the paper says each, which would allow no
    negative score). Convolutions pad with zeros. First weights: He et al. 2015, fan-in,
    zero bias.
    """

    def __init__(
        self,
        layout: Layout,
        in_channels: int,
        n_classes: int,
        *,
        narrowing: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels)
        fewest = min(layer.filters for layer in layout.decoder)
        if not 1 <= narrowing <= fewest:
            raise OptionError(
                f"the narrowing is {narrowing}; expected 1 to {fewest}, the filters of "
                "the narrowest layer.",
                narrowing=narrowing,
            )
        self.encoder = build_encoder("vgg16", levels=(layout.cut,))
        self.decoder = nn.Sequential()
        (channels,) = self.encoder.channels
        for layer in layout.decoder:
            filters = layer.filters // narrowing
            self.decoder.extend([_build(layer, channels, filters), nn.ReLU(True)])
            channels = filters
        self.dropout = dropout_layer(dropout)
        self.classifier = nn.Conv2d(channels, n_classes, kernel_size=3, padding=1)
        initialise_he(self.decoder)
        initialise_he(self.classifier)

    @property
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output."""
        (level,) = self.encoder.geometry()
        layers = [*self.decoder, self.classifier]

        def field(at: int) -> tuple[int, int]:
            first = last = at
            for layer in reversed(layers):
                if isinstance(layer, nn.ConvTranspose2d):
                    first, last = first // 2, last // 2
                elif isinstance(layer, nn.Conv2d):
                    first -= layer.kernel_size[0] // 2
                    last += layer.kernel_size[0] // 2
            return level.field(first, last)

        return halo_of(field, self.stride)

    def decode(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Score images by their features, see the base class."""
        (x,) = features
        scores: Tensor = self.classifier(self.dropout(self.decoder(x)))
        return scores[..., : size[0], : size[1]]


def _build(layer: Convolution | Doubling, channels: int, filters: int) -> nn.Module:
    if isinstance(layer, Doubling):
        return nn.ConvTranspose2d(channels, filters, kernel_size=2, stride=2)
    return nn.Conv2d(channels, filters, layer.kernel, padding=layer.kernel // 2)
