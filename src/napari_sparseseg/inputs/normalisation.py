"""Intensities of any image file brought to [0, 1], the same way ever after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.errors import ImageError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        # A copy even of float32, since torch warns of arrays that cannot be written.
        x = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        x = ((x - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0)
        return x.permute(2, 0, 1).contiguous()


def window_of(given: Sequence[float]) -> Normalisation:
    """Return the normalisation of an intensity window that is given as a pair.

    Raises
    ------
    OptionError
        If it is no pair of numbers, or as :func:`window`.
    """
    try:
        centre, width = given
        return window(centre, width)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the window is {given!r}; expected centre and width, as (40, 400).",
            window=given,
        ) from error


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
        If all pixels of all images have the same value, or none is finite.
    """
    images = list(images)
    extents = [(part.min(), part.max()) for part in map(_finite, images) if part.size]
    low = float(min((start for start, _ in extents), default=np.nan))
    high = float(max((stop for _, stop in extents), default=np.nan))
    if not low < high:
        raise ImageError(
            f"all pixels of the training images have the value {images[0].flat[0]}; "
            "nothing can be learned from a constant image: check the files."
        )
    if all(_is_8_bit_colour(image) for image in images):
        return Normalisation("range", 0.0, 255.0)
    sample = np.concatenate([_sampled(image) for image in images])
    start, stop = (float(p) for p in np.percentile(sample, PERCENTILES))
    if start < stop:
        low, high = start, stop
    return Normalisation("percentiles", low, high)


def _is_8_bit_colour(image: NDArray[Any]) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] > 1


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype.kind in "iub" else values[np.isfinite(values)]


def _sampled(image: NDArray[Any]) -> NDArray[np.float32]:
    n_pixels = image.shape[0] * image.shape[1]
    # Whole pixels: every n-th number could always be of the same channel.
    pixels = image.reshape(n_pixels, -1)[:: -(-n_pixels // SAMPLED_PIXELS)]
    return _finite(pixels.astype(np.float32)).reshape(-1)
