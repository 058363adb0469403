"""Which encoder is meant by settings, and whether what it is to know is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_sparseseg.networks.network_names import BACKBONE_OF, ENCODER_OF, preset_on
from napari_sparseseg.networks.published_weights import is_fetched
from napari_sparseseg.pseudo_masks.method_names import MINING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.engine.messages import MaskSettings, TrainingSettings
    from napari_sparseseg.networks.network_names import BackboneName
    from napari_sparseseg.networks.published_weights import EncoderName

#: As people write them.
ENCODERS: dict[EncoderName, str] = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg16": "VGG16",
}

RANDOM, PUBLISHED = "none", "imagenet"


def encoders_of(
    settings: TrainingSettings, devices: Sequence[tuple[str, str]]
) -> tuple[EncoderName, ...]:
    """Return the encoders of the network and the quick start wished for.

    Parameters
    ----------
    settings
        Of the training.
    devices
        (name, words) of those that can compute, the best first; none as long as the
        engine has not told.
    """
    return settings.encoders(_chosen(settings.device, devices))


def encoder_of_masks(
    settings: MaskSettings, devices: Sequence[tuple[str, str]]
) -> EncoderName | None:
    """Return the encoder that looks at boxes, None where the method has none."""
    if settings.method not in MINING:
        return None
    return _backbone(settings, devices)


def _backbone(
    settings: MaskSettings, devices: Sequence[tuple[str, str]]
) -> BackboneName:
    preset = preset_on(_chosen(settings.device, devices))
    return settings.backbone or BACKBONE_OF[preset]


def _chosen(device: str, devices: Sequence[tuple[str, str]]) -> str:
    if device != "auto":
        return device
    return devices[0][0] if devices else "cpu"


def consistent(
    wished: TrainingSettings,
    before: TrainingSettings,
    devices: Sequence[tuple[str, str]],
) -> TrainingSettings:
    """Return settings without what their network or quick start cannot do.

    Where there is no encoder there are no weights of one. A file is of one encoder, and
    is not kept for another. The quick start learns no features, so those that it sees
    are not random; nor are those that the network keeps as they are.

    Parameters
    ----------
    wished, before
        What is asked for, and what was before.
    devices
        As of :func:`encoders_of`.
    """
    if not wished.head_start:
        wished = replace(wished, head_features="fixed")
    encoders = encoders_of(wished, devices)
    weights = wished.encoder_weights
    if weights not in (RANDOM, PUBLISHED):
        known = encoders_of(before, devices)
        is_kept = weights == before.encoder_weights
        if len(encoders) > 1 or (is_kept and not set(encoders) <= set(known)):
            weights = RANDOM
    if not encoders:
        weights = RANDOM
    elif weights == RANDOM and wished.head_features != "fixed":
        weights = PUBLISHED
    freezes = wished.freeze_encoder and wished.net in ENCODER_OF and weights != RANDOM
    return replace(wished, encoder_weights=weights, freeze_encoder=freezes)


def consistent_masks(
    wished: MaskSettings, before: MaskSettings, devices: Sequence[tuple[str, str]]
) -> MaskSettings:
    """Return settings without a file of weights of the backbone of before.

    Parameters
    ----------
    wished, before, devices
        As of :func:`consistent`.
    """
    is_kept = wished.weights == before.weights not in (RANDOM, PUBLISHED)
    if is_kept and _backbone(wished, devices) != _backbone(before, devices):
        return replace(wished, weights=RANDOM)
    return wished


def is_missing(encoder: EncoderName | None, weights: str) -> bool:
    """Tell whether published weights are wished for that are not on this computer."""
    if encoder is None or weights != PUBLISHED:
        return False
    return not is_fetched(encoder)


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
