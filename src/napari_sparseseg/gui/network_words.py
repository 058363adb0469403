"""Networks and their features, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_sparseseg.networks.network_names import ENCODER_OF

if TYPE_CHECKING:
    from napari_sparseseg.networks.network_names import NetworkName

NETWORKS: dict[NetworkName, str] = {
    "unet": "U-Net",
    "unet-vgg16": "U-Net on VGG16",
    "unet-resnet50": "U-Net on ResNet",
    "vgg-fcn": "VGG16-FCN",
    "vgg-fcn-1": "VGG16-FCN, 11 x 11",
    "vgg-fcn-2": "VGG16-FCN, 9 x 9",
    "vgg-fcn-3": "VGG16-FCN, 3 x 3",
    "deeplabv3": "DeepLabV3",
}
FEATURES = {"none": "random", "imagenet": "from ImageNet", "file": "from a file"}


def words_on(net: str, weights: str, *, is_frozen: bool) -> str:
    """Say which network it is and what it knew to begin with.

    Parameters
    ----------
    net
        Of ``NETWORKS``, or of a newer version.
    weights
        First weights of its encoder: ``"none"``, ``"imagenet"``, ``"file"``, or a file.
    is_frozen
        Whether the encoder keeps them.
    """
    titles: dict[str, str] = dict(NETWORKS.items())
    title = titles.get(net, net)
    if net not in ENCODER_OF:
        return f"Network: {title}"
    features = FEATURES.get(weights, f"from {Path(weights).name}")
    kept = ", kept as they are" if is_frozen else ""
    return f"Network: {title}, features {features}{kept}"
