"""Which encoder is meant by settings, and whether what it is to know is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_sparseseg.networks.network_names import ENCODER_OF
from napari_sparseseg.networks.published_weights import published_path
from napari_sparseseg.pseudo_masks.method_names import MINING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.engine.messages import MaskSettings, TrainingSettings
    from napari_sparseseg.networks.network_names import Preset
    from napari_sparseseg.networks.published_weights import EncoderName

#: As people write them.
ENCODERS: dict[EncoderName, str] = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg16": "VGG16",
}

RANDOM, PUBLISHED = "none", "imagenet"


def encoder_of(
    settings: TrainingSettings, devices: Sequence[tuple[str, str]]
) -> EncoderName | None:
    """Return the encoder of the network wished for, None where it has none.

    Parameters
    ----------
    settings
        Of the training.
    devices
        (name, words) of those that can compute, the best first; none as long as the
        engine has not told.
    """
    presets = ENCODER_OF.get(settings.net)
    if presets is None:
        return None
    on_cpu = _is_cpu(settings.device, devices)
    automatic: Preset = "light" if on_cpu else "paper"
    return presets[automatic if settings.preset == "auto" else settings.preset]


def encoder_of_masks(
    settings: MaskSettings, devices: Sequence[tuple[str, str]]
) -> EncoderName | None:
    """Return the encoder that looks at boxes, None where the method has none."""
    if settings.method not in MINING:
        return None
    automatic: EncoderName = (
        "resnet18" if _is_cpu(settings.device, devices) else "resnet50"
    )
    return settings.backbone or automatic


def _is_cpu(device: str, devices: Sequence[tuple[str, str]]) -> bool:
    if device == "auto":
        device = devices[0][0] if devices else "cpu"
    return device == "cpu"


def consistent(settings: TrainingSettings) -> TrainingSettings:
    """Return settings without what their network cannot do.

    A network without an encoder takes no weights of one, and random weights that are
    kept as they are would teach nothing.
    """
    if settings.net not in ENCODER_OF:
        settings = replace(settings, encoder_weights=RANDOM)
    if settings.encoder_weights == RANDOM:
        settings = replace(settings, freeze_encoder=False)
    return settings


def is_missing(encoder: EncoderName | None, weights: str) -> bool:
    """Tell whether published weights are wished for that are not on this computer."""
    if encoder is None or weights != PUBLISHED:
        return False
    return not published_path(encoder).exists()


def why_missing(encoder: EncoderName | None, weights: str, where: str) -> str:
    """Tell what to do about weights that are missing; empty where none are.

    Parameters
    ----------
    encoder, weights
        What is wished for.
    where
        The place in the dock where they are chosen.
    """
    if encoder is None or not is_missing(encoder, weights):
        return ""
    return (
        f"The ImageNet features of {ENCODERS[encoder]} are not on this computer yet: "
        f"press Download under {where}, or choose others there."
    )
