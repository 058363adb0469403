"""Fixed multi-scale features, the input of the per-pixel head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Standard deviations of the Gaussians, in pixels of the working resolution.
SIGMAS = (1.0, 2.0, 4.0, 8.0)

#: Gaussians are cut at this many standard deviations.
TRUNCATE = 3.0

# Optical densities (R, G, B) of haematoxylin, eosin and DAB: Ruifrok and Johnston
# 2001, the values of skimage.color.rgb_from_hed.
HED_TO_RGB = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))

#: Intensities below are taken as this one before the logarithm, as scikit-image does.
DARKEST = 1e-6


def hed_to_rgb_matrix() -> Tensor:
    """Return the (3, 3) matrix whose rows are the stains' optical densities."""
    return torch.tensor(HED_TO_RGB)


def rgb_to_hed(rgb: Tensor) -> Tensor:
    """Separate stains by optical density.

    Parameters
    ----------
    rgb
        (B, 3, H, W) float in [0, 1].

    Returns
    -------
    Tensor
        (B, 3, H, W): haematoxylin, eosin, DAB, with the scale and the clipping at 0
        of ``skimage.color.rgb2hed``.
    """
    return unmix(rgb).clamp_min(0)


def unmix(rgb: Tensor) -> Tensor:
    """Return unclipped stain densities, (B, 3, H, W), of *rgb* in [0, 1]."""
    matrix = torch.linalg.inv(hed_to_rgb_matrix().double()).to(rgb)
    density = rgb.clamp_min(DARKEST).log() / math.log(DARKEST)
    return torch.einsum("bchw,cs->bshw", density, matrix)


def mix(stains: Tensor) -> Tensor:
    """Invert :func:`unmix`: (B, 3, H, W) stain densities to RGB in [0, 1]."""
    density = torch.einsum("bshw,sc->bchw", stains, hed_to_rgb_matrix().to(stains))
    return (density * math.log(DARKEST)).exp().clamp(0, 1)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with a Gaussian of *sigma* pixels, edges replicated."""
    from kornia.filters import gaussian_blur2d

    size = 2 * math.ceil(TRUNCATE * sigma) + 1
    blurred: Tensor = gaussian_blur2d(
        x, (size, size), (sigma, sigma), border_type="replicate"
    )
    return blurred


def derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return central differences of (B, C, H, W) along y and x."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return dy, dx


def hessian_eigenvalues(x: Tensor) -> Tensor:
    """Return the larger and the smaller Hessian eigenvalue, (B, 2 C, H, W)."""
    dy, dx = derivatives(x)
    dyy, dyx = derivatives(dy)
    _, dxx = derivatives(dx)
    middle = (dyy + dxx) / 2
    radius = (((dyy - dxx) / 2) ** 2 + dyx**2).sqrt()
    return torch.cat([middle + radius, middle - radius], dim=1)


class FixedFeatures(nn.Module):
    """Colour, stain and texture of each pixel at several scales; nothing is learned.

    Parameters
    ----------
    in_channels
        Channels of the images. Three are taken for RGB: stain densities join the
        colours, and texture is measured on haematoxylin. Of one channel (CT) Hessian
        eigenvalues are taken too. Other numbers of channels: Gaussians of each, and
        texture of their mean.

    Notes
    -----
    (B, in_channels, H, W) float in [0, 1] -> (B, n_features, H, W). For RGB these
    are 38: RGB and stains, their Gaussians at ``SIGMAS``, and at each sigma gradient
    magnitude and local standard deviation of haematoxylin.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        base = 6 if in_channels == 3 else in_channels
        texture = 4 if in_channels == 1 else 2
        self.n_features = base + len(SIGMAS) * (base + texture)

    @property
    def halo(self) -> int:
        """Radius in pixels beyond which a pixel cannot change a feature."""
        return math.ceil(TRUNCATE * max(SIGMAS)) + 2

    def forward(self, x: Tensor) -> Tensor:
        base, textured = self._channels(x)
        features = [base]
        for sigma in SIGMAS:
            features += [gaussian_blur(base, sigma), *self._texture(textured, sigma)]
        return torch.cat(features, dim=1)

    def _channels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.in_channels == 3:
            stains = rgb_to_hed(x) * 10  # brings densities to the range of colours
            return torch.cat([x, stains], dim=1), stains[:, :1]
        return x, x.mean(dim=1, keepdim=True)

    def _texture(self, x: Tensor, sigma: float) -> list[Tensor]:
        mean = gaussian_blur(x, sigma)
        variance = gaussian_blur(x**2, sigma) - mean**2
        dy, dx = derivatives(mean)
        texture = [(dy**2 + dx**2).sqrt(), variance.clamp_min(0).sqrt()]
        if self.in_channels == 1:
            texture.append(hessian_eigenvalues(mean) * sigma**2)
        return texture
