"""DeepLabV3 (Chen et al. 2017, "Rethinking Atrous Convolution") on a ResNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.networks.backbone import build_backbone
from napari_sparseseg.networks.batch_norm import learn_from_single_values
from napari_sparseseg.networks.blocks import convolution
from napari_sparseseg.networks.image_statistics import UsesImageStatistics
from napari_sparseseg.networks.scoring import EncoderDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sparseseg.networks.network_names import BackboneName

#: Input pixels to one pixel of the features.
OUTPUT_STRIDE = 8

#: Dilations of the pyramid's branches at this stride (Chen et al. 2017, section 3.3),
#: and the channels of each.
ATROUS_RATES, CHANNELS = (12, 24, 36), 256


class DeepLabV3(EncoderDecoder):
    """DeepLabV3 as in torchvision, without its auxiliary classifier.

    Parameters
    ----------
    in_channels
        See the base class.
    n_classes
        Channels of the output, one score map a class.
    backbone
        ``"resnet50"`` as in Fan 2022, section 3.3, or ``"resnet18"`` for a CPU.

    Raises
    ------
    ImageError
        See the base class.
    OptionError
        If the backbone is not known.

    Notes
    -----
    Batch normalisation uses the statistics of a mini-batch while learning, and running
    ones for a prediction; the mean over the image in the pyramid is measured once an
    image (:mod:`.image_statistics`). So a prediction does not depend on its tiles.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        backbone: BackboneName = "resnet50",
    ) -> None:
        super().__init__(in_channels)
        from torchvision.models.segmentation.deeplabv3 import ASPP

        self.encoder = build_backbone(backbone, "none", ("layer4",))
        dilate((self.encoder["layer3"], self.encoder["layer4"]))
        (width,) = self.encoder.channels
        pyramid: Any = ASPP(width, ATROUS_RATES, CHANNELS)
        pyramid.convs[-1] = ImagePooling(width)
        self.pyramid: nn.Module = pyramid
        self.head = convolution(CHANNELS, CHANNELS, "batch")
        self.classifier = nn.Conv2d(CHANNELS, n_classes, kernel_size=1)
        learn_from_single_values(self)

    @property
    def halo(self) -> int:
        """Radius, in pixels, beyond which an input pixel cannot change an output.

        The pyramid and the head reach further by 3x3 convolutions, and up-sampling by
        one pixel of the features.
        """
        return self.encoder.halo[-1] + OUTPUT_STRIDE * (max(ATROUS_RATES) + 1 + 1)

    def decode(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Score images by their deepest features, see the base class."""
        (x,) = features
        scores = self.classifier(self.head(self.pyramid(x)))
        height, width = x.shape[-2] * OUTPUT_STRIDE, x.shape[-1] * OUTPUT_STRIDE
        scores = F.interpolate(
            scores, size=(height, width), mode="bilinear", align_corners=False
        )
        return scores[..., : size[0], : size[1]]


class ImagePooling(UsesImageStatistics):
    """The branch of the pyramid that knows the mean of each feature over the image.

    (B, C, H, W) -> (B, ``CHANNELS``, H, W), the same at every pixel (Chen et al. 2017,
    section 3.3). The statistics are (C,): the means.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, CHANNELS, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Pool *x*, and spread what follows from it over all pixels."""
        means = x.mean(dim=(2, 3)) if self.fixed is None else self.fixed[None]
        if self.measuring:
            self.measured = means.mean(dim=0)
        pooled: Tensor = self.norm(self.convolution(means[:, :, None, None])).relu()
        return pooled.expand(x.shape[0], -1, *x.shape[2:])


def dilate(stages: Iterable[nn.Module]) -> None:
    """Let stages of a ResNet keep the resolution of their input, in place.

    A convolution that loses its stride doubles the dilation of those behind it. So the
    weights mean what they meant, and every second pixel of a stage (then every fourth)
    is what it was. For ResNet-50 this is torchvision's
    ``replace_stride_with_dilation``, which its ResNet-18 does not have.
    """
    dilation = 1
    for stage in stages:
        for layer in stage.modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            stride, layer.stride = layer.stride[0], (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (dilation, dilation)
                dilation *= stride
