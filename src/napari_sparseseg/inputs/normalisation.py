"""Intensities of any image file brought to [0, 1], the same way ever after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.errors import ImageError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: Percentiles of the training images that become 0 and 1.
PERCENTILES = (0.5, 99.5)

#: At most this many pixels of an image are looked at for the percentiles.
SAMPLED_PIXELS = 250_000


@dataclass(frozen=True, slots=True)
class Normalisation:
    """A linear map of intensities, ``low`` to 0 and ``high`` to 1, clipped.

    Attributes
    ----------
    kind
        ``"range"`` of 8-bit colours, ``"percentiles"`` of the training images, or a
        ``"window"`` named by the user (CT: centre -+ width / 2, in HU).
    low, high
        In the units of the image.
    """

    kind: Literal["range", "percentiles", "window"]
    low: float
    high: float

    def apply(self, image: NDArray[Any]) -> Tensor:
        """Turn (y, x) or (y, x, c) numbers into a (c, y, x) float32 tensor in [0, 1].

        NaN becomes 0.
        """
        array = image[..., None] if image.ndim == 2 else image
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        x = ((x - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0)
        return x.permute(2, 0, 1).contiguous()


def window(centre: float, width: float) -> Normalisation:
    """Return the normalisation of an intensity window, as radiologists name it.

    Raises
    ------
    OptionError
        If *width* is not positive or either is not finite.
    """
    if not (np.isfinite(centre) and np.isfinite(width) and width > 0):
        raise OptionError(
            f"the window has centre {centre} and width {width}; expected numbers, "
            "the width above 0 (for example 40 and 400 for soft tissue).",
            centre=centre,
            width=width,
        )
    return Normalisation("window", centre - width / 2, centre + width / 2)


def fit_normalisation(images: Iterable[NDArray[Any]]) -> Normalisation:
    """Choose the normalisation for a set of images without a window.

    8-bit colours keep their range. All else, grey images and colours of more than 8
    bits, is stretched between two percentiles taken over the pixels of all images.

    Parameters
    ----------
    images
        Each (y, x) or (y, x, c), any numeric type; at least one.

    Raises
    ------
    ImageError
        If all pixels of all images have the same value.
    """
    images = list(images)
    if all(image.dtype == np.uint8 and image.ndim == 3 for image in images):
        low, high = 0.0, 255.0
        kind: Literal["range", "percentiles"] = "range"
        if all(image.min() == image.max() for image in images):
            low = high
    else:
        sample = np.concatenate([_sampled(image) for image in images])
        low, high = (float(p) for p in np.percentile(sample, PERCENTILES))
        if low == high:
            low, high = float(sample.min()), float(sample.max())
        kind = "percentiles"
    if low == high:
        raise ImageError(
            f"all pixels of the training images have the value {images[0].flat[0]}; "
            "nothing can be learned from a constant image: check the files."
        )
    return Normalisation(kind, low, high)


def _sampled(image: NDArray[Any]) -> NDArray[np.float32]:
    values = image.reshape(-1)
    step = max(1, values.size // SAMPLED_PIXELS)
    sampled = values[::step].astype(np.float32)
    return sampled[np.isfinite(sampled)]
