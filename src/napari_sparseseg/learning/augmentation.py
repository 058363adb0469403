"""Random views of an image and its labels, with one geometric draw for both.

A patch is not cut out and then turned, which would leave empty corners: the turned,
bent grid is laid into the whole image and sampled once, so only the border of the
image itself is ever missing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.fixed_features import TRUNCATE, mix, unmix

#: Control points of the elastic deformation along each side of a patch.
ELASTIC_POINTS = 5

Range = tuple[float, float]

#: ``"none"``; ``"one"``: one third each as it is, mirrored about the x axis, and about
#: the y axis; ``"any"``: about each axis with probability one half, so also about both.
Flip = Literal["none", "one", "any"]

#: The signs of (y, x) of ``"one"``.
ONE_FLIP = ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0))


@dataclass(frozen=True, slots=True)
class AugmentationOptions:
    """Ranges of the random changes; (low, high) are drawn uniformly.

    The list is that of Bokhorst 2018, section 3 "Training"; the ranges are ours.
    Mirroring about one axis, noise and tiling are those of Abdulhamid, section 4.2.

    Attributes
    ----------
    flip
        Mirroring, see :data:`Flip`.
    rotate
        Turn by any angle.
    zoom
        Factor of magnification.
    elastic_px
        Largest displacement of a control point, in pixels of the working resolution.
    blur_px
        Standard deviation of the Gaussian blur, in pixels.
    gamma, contrast, saturation
        Exponent, factor about the patch's mean, factor about grey.
    stain
        Haematoxylin, eosin and DAB densities are multiplied by ``1 +- stain``
        (RGB only).
    noise
        Largest standard deviation of the added Gaussian noise, intensities being in
        [0, 1].
    tiling
        A patch is a tile of a regular grid over the image, in place of one that lies
        anywhere about a labelled pixel. An image that is no larger than a patch is one
        tile: the whole image.
    """

    flip: Flip = "any"
    rotate: bool = True
    zoom: Range = (0.9, 1.1)
    elastic_px: float = 10.0
    blur_px: Range = (0.0, 1.5)
    gamma: Range = (0.7, 1.4)
    contrast: Range = (0.8, 1.2)
    saturation: Range = (0.8, 1.2)
    stain: float = 0.2
    noise: float = 0.03
    tiling: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError if the way of mirroring is not known."""
        if self.flip not in get_args(Flip):
            raise OptionError(
                f"mirroring is named {self.flip!r}; expected one of "
                f"{', '.join(get_args(Flip))}.",
                flip=self.flip,
            )

    def for_channels(self, n_channels: int) -> AugmentationOptions:
        """Return the options without what makes no sense for so many channels.

        Colour is changed of RGB only. Of one channel (CT) neither is contrast, since
        its values have a meaning of their own.
        """
        if n_channels == 3:
            return self
        plain = dataclasses.replace(self, saturation=(1.0, 1.0), stain=0.0)
        if n_channels > 1:
            return plain
        return dataclasses.replace(plain, contrast=(1.0, 1.0))


#: Abdulhamid, section 4.2: three whole images of one. Noise, and tiles smaller than the
#: image, are proposed there and were not used.
AUGMENTATION_ABDULHAMID = AugmentationOptions(
    flip="one",
    rotate=False,
    zoom=(1.0, 1.0),
    elastic_px=0.0,
    blur_px=(0.0, 0.0),
    gamma=(1.0, 1.0),
    contrast=(1.0, 1.0),
    saturation=(1.0, 1.0),
    stain=0.0,
    noise=0.0,
    tiling=True,
)


def uniform(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """Draw *count* numbers from [low, high) on the CPU."""
    return torch.rand(count, generator=generator) * (high - low) + low


def draw_flips(count: int, flip: Flip, generator: Generator) -> Tensor:
    """Draw the signs of (y, x), (count, 2) float: -1 where an axis is turned round."""
    if flip == "none":
        return torch.ones(count, 2)
    if flip == "any":
        return torch.randint(0, 2, (count, 2), generator=generator) * 2.0 - 1.0
    return torch.tensor(ONE_FLIP)[torch.randint(3, (count,), generator=generator)]


def draw_offsets(
    count: int, size: int, options: AugmentationOptions, generator: Generator
) -> Tensor:
    """Draw where the pixels of *count* patches lie relative to their centres.

    Returns
    -------
    Tensor
        (count, size, size, 2) float, (y, x) offsets in pixels.
    """
    axis = torch.arange(size) - (size - 1) / 2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    angle = uniform(-math.pi, math.pi, count, generator) * options.rotate
    zoom = uniform(*options.zoom, count, generator)
    flips = draw_flips(count, options.flip, generator)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    turn = torch.stack([cos, -sin, sin, cos], dim=-1).view(count, 2, 2)
    offsets = torch.einsum("nij,hwj->nhwi", turn * flips[:, None, :], grid)
    if options.elastic_px:
        points = torch.rand(
            (count, 2, ELASTIC_POINTS, ELASTIC_POINTS), generator=generator
        )
        bend = F.interpolate(
            points * 2 - 1, size=(size, size), mode="bicubic", align_corners=True
        )
        offsets = offsets + options.elastic_px * bend.permute(0, 2, 3, 1)
    return offsets


def sample_pixels(image: Tensor, places: Tensor) -> Tensor:
    """Return (C, h, w) of a (C, H, W) image at (h, w, 2) places (y, x) in pixels.

    Bilinear; the image is mirrored at its border.
    """
    unit = (places + 0.5) * 2 / torch.tensor(image.shape[1:]) - 1
    return F.grid_sample(
        image[None],
        unit.flip(-1)[None].to(image),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )[0]


def sample_labels(labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return (h, w) of (H, W) labels at (h, w, 2) places (y, x) in pixels.

    By nearest neighbour, 0 beyond the border; and bool, which places lie within it.
    """
    height, width = labels.shape
    nearest = places.round().long()
    y, x = nearest[..., 0], nearest[..., 1]
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).to(labels.device)
    y, x = y.clamp(0, height - 1).to(labels.device), x.clamp(0, width - 1)
    cut = labels[y, x.to(labels.device)]
    return torch.where(inside, cut, 0), inside


def change_colours(
    images: Tensor,
    options: AugmentationOptions,
    generator: Generator,
    count: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Change stain, gamma, contrast, saturation, sharpness and noise of each image.

    Parameters
    ----------
    images
        (B, C, H, W) float in [0, 1].
    options
        Ranges; ``options.for_channels(C)`` leaves colour out where there is none.
    generator
        On the CPU, so that every device sees the same draws.
    count, part
        Of how many images these are which part: it is drawn for all, so that these
        are what they would be among the others. Default: all.

    Returns
    -------
    Tensor
        (B, C, H, W) float in [0, 1].
    """
    total = len(images) if count is None else count
    options = options.for_channels(images.shape[1])

    def draw(low: float, high: float) -> Tensor:
        drawn = uniform(low, high, total, generator)
        return drawn[part].to(images).view(-1, 1, 1, 1)

    if options.stain:
        gains = uniform(1 - options.stain, 1 + options.stain, 3 * total, generator)
        gains = gains.view(total, 3, 1, 1)[part]
        images = mix(unmix(images) * gains.to(images))
    images = images.clamp(0, 1) ** draw(*options.gamma)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * draw(*options.contrast)
    if options.saturation != (1.0, 1.0):
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * draw(*options.saturation)
    sigmas = uniform(*options.blur_px, total, generator)
    images = blur_each(images, sigmas[part], float(sigmas.max()))
    if options.noise:
        noise = torch.randn((total, *images.shape[1:]), generator=generator)
        noise = noise[part].to(images)
        images = images + noise * draw(0, options.noise)
    return images.clamp(0, 1)


def blur_each(images: Tensor, sigmas: Tensor, widest: float | None = None) -> Tensor:
    """Blur each of (B, C, H, W) with its own Gaussian of *sigmas* (B,) pixels.

    All are cut off where the widest of them is; default: of these.
    """
    from kornia.filters import gaussian_blur2d

    widest = float(sigmas.max()) if widest is None else widest
    size = 2 * math.ceil(TRUNCATE * widest) + 1
    if size == 1:
        return images
    sigmas = sigmas.clamp_min(0.1).to(images)  # a delta, where 0 would divide by 0
    blurred: Tensor = gaussian_blur2d(
        images, (size, size), sigmas[:, None].repeat(1, 2), border_type="replicate"
    )
    return blurred
