"""The networks by name, and which to choose when.

In a module without torch, so that the window can ask too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_sparseseg.networks.published_weights import EncoderName

#: ``unet``: of Bokhorst et al. 2018. ``unet-vgg16``, ``unet-resnet50``: a U-Net on an
#: encoder that others may have trained. ``vgg-fcn``, and its experiments 1 to 3: VGG16
#: with transposed convolutions, of Abdulhamid et al. ``deeplabv3``: of Fan et al. 2022.
NetworkName = Literal[
    "unet",
    "unet-vgg16",
    "unet-resnet50",
    "vgg-fcn",
    "vgg-fcn-1",
    "vgg-fcn-2",
    "vgg-fcn-3",
    "deeplabv3",
]

#: ``paper``: as in its paper; ``light``: one for a CPU.
Preset = Literal["light", "paper"]

BackboneName = Literal["resnet18", "resnet50"]


def preset_on(device: str) -> Preset:
    """Return the preset that ``auto`` stands for where a device computes."""
    return "light" if device == "cpu" else "paper"


#: The ResNet of whatever is built on one.
BACKBONE_OF: dict[Preset, BackboneName] = {"light": "resnet18", "paper": "resnet50"}

#: The encoder of each network that has one, by preset.
ENCODER_OF: dict[NetworkName, dict[Preset, EncoderName]] = {
    "unet-vgg16": {"light": "vgg16", "paper": "vgg16"},
    "unet-resnet50": {**BACKBONE_OF},
    "vgg-fcn": {"light": "vgg16", "paper": "vgg16"},
    "vgg-fcn-1": {"light": "vgg16", "paper": "vgg16"},
    "vgg-fcn-2": {"light": "vgg16", "paper": "vgg16"},
    "vgg-fcn-3": {"light": "vgg16", "paper": "vgg16"},
    "deeplabv3": {**BACKBONE_OF},
}

#: What the per-pixel head looks at: fixed features, and with the name of an encoder its
#: early layers too.
HeadFeatures = Literal["fixed", "resnet18", "resnet50", "vgg16"]

#: A line on when to choose which.
WHEN_TO_CHOOSE: dict[NetworkName, str] = {
    "unet": "Small and quick, learns from scratch, histology and CT alike. The choice "
    "for a CPU.",
    "unet-vgg16": "U-Net on features of VGG16: few labels, fine edges such as those of "
    "nuclei and glands. Wants a GPU.",
    "unet-resnet50": "U-Net on features of ResNet-50 (ResNet-18 on a CPU): few labels, "
    "large structures such as kinds of tissue and organs.",
    "vgg-fcn": "VGG16 with two transposed convolutions: smooth, large regions, such as "
    "tumour and stroma.",
    "vgg-fcn-1": "VGG16 and one wide decoder (11 x 11) at half resolution. Slow; "
    "to compare.",
    "vgg-fcn-2": "VGG16 and one wide decoder (9 x 9) at half resolution. Slow; "
    "to compare.",
    "vgg-fcn-3": "VGG16 and a deep decoder (3 x 3) at half resolution. Slow; "
    "to compare.",
    "deeplabv3": "Sees far around each pixel: organs and lesions in CT, from masks of "
    "boxes.",
}
