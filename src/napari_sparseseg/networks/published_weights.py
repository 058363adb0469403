"""Weights that torchvision has published: what they are, where they are, how to get.

In a module without torch, so that the window can ask too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_sparseseg.errors import ModelFileError, OptionError
from napari_sparseseg.networks.download import DownloadError, download_in_parts

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

EncoderName = Literal["resnet18", "resnet50", "vgg16"]


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Weights of an encoder, learned from ImageNet.

    Attributes
    ----------
    sha256
        How the hash of the file begins. The first is taken by name; the others are
        versions that are known as well.
    size_mib
        Of the first, in MiB.
    """

    sha256: tuple[str, ...]
    size_mib: float


#: Of ResNet-50's, the version that was there in 2022 comes first.
PUBLISHED: dict[EncoderName, PublishedWeights] = {
    "resnet18": PublishedWeights(("f37072fd",), 44.661),
    "resnet50": PublishedWeights(("0676ba61", "11ad3fa6"), 97.781),
    "vgg16": PublishedWeights(("397923af",), 527.796),
}

#: Where they are to be downloaded, by their names.
PUBLISHED_AT = "https://download.pytorch.org/models"

#: Sizes are told to a thousandth of a MiB.
SIZE_TOLERANCE_MIB = 0.001

#: Under what they are given away.
LICENCE = "BSD-3-Clause (torchvision); learned from ImageNet, for research"


def published_path(name: EncoderName) -> Path:
    """Return where torch's cache has the published weights, or will have them."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    file = f"{name}-{PUBLISHED[name].sha256[0]}.pth"
    return Path(os.path.expandvars(home), "hub", "checkpoints", file).expanduser()


def how_to_bring(names: Sequence[EncoderName]) -> str:
    """Say what to do without a connection, in words for inside a sentence."""
    addresses = " and ".join(f"{PUBLISHED_AT}/{published_path(n).name}" for n in names)
    it = "it" if len(names) == 1 else "them"
    return (
        f"fetch {addresses} on another computer and put {it} into the folder "
        f"{published_path(names[0]).parent}"
    )


def is_fetched(name: EncoderName) -> bool:
    """Tell whether torch's cache has the published weights, by the size of the file.

    What is left of a download that was broken off counts as nothing.
    """
    try:
        size = published_path(name).stat().st_size
    except OSError:
        return False
    return abs(size / 2**20 - PUBLISHED[name].size_mib) < SIZE_TOLERANCE_MIB


def origin_of(weights: str | Path) -> str:
    """Return where weights come from: ``"none"``, ``"imagenet"`` or a file.

    Raises
    ------
    OptionError
        If nothing is named.
    """
    origin = str(weights).strip()
    if not origin:
        raise OptionError(
            "the weights are named ''; expected none, imagenet or a file."
        )
    return origin.lower() if origin.lower() in ("none", "imagenet") else str(weights)


def fetch_in_parts(
    name: EncoderName, weights: str | Path
) -> Generator[int, None, None]:
    """Download weights that are asked for and not there yet.

    Whoever stops asking and closes the generator gives the download up.

    Parameters
    ----------
    name
        A key of ``PUBLISHED``.
    weights
        ``"imagenet"``: they are asked for. Anything else: nothing is to be downloaded.

    Yields
    ------
    int
        Bytes so far, some times a second.

    Raises
    ------
    OptionError
        If the name is not known.
    ModelFileError
        If they cannot be downloaded.
    OutputError
        If they cannot be written to torch's cache.
    """
    check_encoder_name(name)
    path = published_path(name)
    if weights != "imagenet" or is_fetched(name):
        return
    url = f"{PUBLISHED_AT}/{path.name}"
    try:
        yield from download_in_parts(url, path, PUBLISHED[name].sha256[0])
    except DownloadError as error:
        raise ModelFileError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}); without a "
            f"connection, {how_to_bring([name])}, or give a file that holds them, or "
            "'none'.",
            url=url,
            option="train --encoder-weights FILE, pseudo-masks --weights FILE",
        ) from error


def check_encoder_name(name: str) -> None:
    """Raise OptionError if an encoder is not known."""
    if name not in PUBLISHED:
        raise OptionError(
            f"the encoder is named {name!r}; expected one of {', '.join(PUBLISHED)}.",
            name=name,
        )
