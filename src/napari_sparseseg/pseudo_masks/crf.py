"""The dense CRF: class probabilities made to follow the edges of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.pseudo_masks.permutohedral import PermutohedralLattice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

#: Which code infers; see :func:`dense_crf`.
CrfBackend = Literal["auto", "pydensecrf", "torch"]

#: Probabilities below are taken as this one, as ``pydensecrf.utils`` does.
LEAST_PROBABILITY = 1e-5

#: How far rounding may carry a probability out of [0, 1].
ROUNDING = 1e-3

#: Crops of up to so many pixels are computed by exact sums over all pairs.
EXACT_PIXELS = 32**2

#: Crops are put together on one lattice up to so many pixels, which take about 300 MB,
#: in colours 600.
PIXELS_AT_ONCE = 2**19


@dataclass(frozen=True, slots=True)
class CrfOptions:
    """The parameters of a dense CRF, named as in Kraehenbuehl and Koltun 2011, eq. 3.

    Attributes
    ----------
    theta_alpha
        Reach of the appearance kernel in pixels; None = sqrt(width * height) / 4 of
        the box, or of the whole image where :func:`dense_crf` is given no box.
    theta_beta
        How far colours, or grey values, may differ in it; in steps of 8 bits.
    theta_gamma
        Reach of the smoothness kernel in pixels.
    w1, w2
        Weights of the appearance and the smoothness kernel; 0 leaves it out.
    iterations
        Mean-field updates.

    Raises
    ------
    OptionError
        If a reach is not above 0, a weight below 0, or there is no iteration.
    """

    theta_alpha: float | None = None
    theta_beta: float = 3.0
    theta_gamma: float = 1.0
    w1: float = 4.0
    w2: float = 3.0
    iterations: int = 5

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("theta_alpha", "theta_beta", "theta_gamma"):
            theta = getattr(self, name)
            if theta is not None:
                good = math.isfinite(theta) and theta > 0
                self._check(good, name, "a number above 0")
        for name in ("w1", "w2"):
            weight = getattr(self, name)
            good = math.isfinite(weight) and weight >= 0
            self._check(good, name, "a number from 0")
        self._check(self.iterations >= 1, "iterations", "an integer from 1")

    def _check(self, good: bool, name: str, expected: str) -> None:
        if not good:
            value = getattr(self, name)
            raise OptionError(
                f"The dense CRF has {name} = {value}; give {expected}.", **{name: value}
            )


def dense_crf(
    probabilities: NDArray[np.floating[Any]],
    image: NDArray[np.uint8],
    options: CrfOptions | None = None,
    backend: CrfBackend = "auto",
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Refine class probabilities with a fully connected CRF.

    Every pixel is coupled to every other, more so the nearer and the more alike they
    are, by

        w1 exp(-d^2 / (2 theta_alpha^2) - c^2 / (2 theta_beta^2))
        + w2 exp(-d^2 / (2 theta_gamma^2))

    with the distance d of the pixels and c of their colours or grey values; a grey
    value counts once, not as three equal colours. Labels that differ cost that much
    (Potts model), and mean field finds each pixel's marginal probabilities:
    Kraehenbuehl and Koltun 2011 ("Efficient Inference in Fully Connected CRFs with
    Gaussian Edge Potentials", eq. 2, 3 and algorithm 1). As in ``pydensecrf`` a kernel
    K is normalised to D^-1/2 K D^-1/2, where D holds the sums of its rows, and a pixel
    is coupled to itself too.

    A constant crop is smoothed by distance alone, and in a crop of one pixel the
    likeliest class becomes likelier; neither is an error.

    Parameters
    ----------
    probabilities
        (c, y, x) floats in [0, 1], of two or more classes. The energies are -log p,
        with p at least ``LEAST_PROBABILITY``.
    image
        (y, x), (y, x, 1) or (y, x, 3) uint8: grey values, of CT those of a window, or
        colours.
    options
        Reaches, weights and iterations; None = the default.
    backend
        ``"pydensecrf"``: on the CPU whatever the device, on a lattice. It holds
        Python's interpreter lock all the time, so a process that must answer meanwhile
        lets another one call it. ``"torch"``: on *device*; exact up to
        ``EXACT_PIXELS``, for more on the same lattice. ``"auto"``: ``"pydensecrf"``
        where it is installed and *device* is a CPU, otherwise ``"torch"``.
    device
        A torch device.

    Returns
    -------
    NDArray
        (c, y, x) float32; the classes of each pixel sum to 1.

    Raises
    ------
    ImageError
        If image or probabilities have another shape or type, are empty, do not fit
        each other, or a probability is NaN or not in [0, 1].
    OptionError
        If pydensecrf is asked for and not installed, or the backend is unknown.
    """
    return dense_crf_of_crops([probabilities], [image], options, backend, device)[0]


def dense_crf_of_crops(
    probabilities: Sequence[NDArray[np.floating[Any]]],
    images: Sequence[NDArray[np.uint8]],
    options: CrfOptions | Sequence[CrfOptions] | None = None,
    backend: CrfBackend = "auto",
    device: torch.device | str = "cpu",
) -> list[NDArray[np.float32]]:
    """Refine many crops at once, of any sizes: the same as one by one, and faster.

    Parameters as in :func:`dense_crf`, one array of each a crop, and options for all
    or for each.
    """
    if options is None or isinstance(options, CrfOptions):
        options = [options or CrfOptions()] * len(images)
    crops = [
        _prepare(*each) for each in zip(probabilities, images, options, strict=True)
    ]
    if chosen_backend(backend, torch.device(device)) == "pydensecrf":
        marginals = [_infer_with_pydensecrf(crop) for crop in crops]
    else:
        with torch.no_grad():
            marginals = [
                q.T.numpy()
                for batch in _batches(crops)
                for q in _infer_with_torch(batch, torch.device(device))
            ]
    return [
        np.ascontiguousarray(q, dtype=np.float32).reshape(p.shape)
        for q, p in zip(marginals, probabilities, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Crop:
    """What inference needs of a crop of n pixels.

    ``log_p`` is (c, n) float32, ``kernels`` holds the weight of each kernel and its
    features, (d, n) float32 in units of the standard deviation.
    """

    log_p: NDArray[np.float32]
    kernels: list[tuple[float, NDArray[np.float32]]]
    iterations: int

    @property
    def n_pixels(self) -> int:
        n_pixels: int = self.log_p.shape[1]
        return n_pixels

    @property
    def kind(self) -> tuple[object, ...]:
        """What crops on one lattice must have in common."""
        kernels = [(weight, len(features)) for weight, features in self.kernels]
        return len(self.log_p), self.iterations, *kernels


def _prepare(
    probabilities: NDArray[np.floating[Any]],
    image: NDArray[np.uint8],
    options: CrfOptions,
) -> _Crop:
    _check_image(image)
    height, width = image.shape[:2]
    _check_probabilities(probabilities, (height, width))
    clipped = np.clip(probabilities, LEAST_PROBABILITY, 1)
    log_p = np.log(clipped, dtype=np.float32).reshape(len(probabilities), -1)

    # x before y, as pydensecrf has it: the lattice is not the same in all directions.
    position = np.mgrid[:height, :width][::-1].reshape(2, -1)
    colour = image.reshape(height * width, -1).T
    theta_alpha = options.theta_alpha or math.sqrt(width * height) / 4
    smoothness = position / options.theta_gamma
    appearance = np.concatenate(
        [position / theta_alpha, colour / options.theta_beta], axis=0
    )
    kernels = [
        (weight, features.astype(np.float32))
        for weight, features in ((options.w2, smoothness), (options.w1, appearance))
        if weight > 0
    ]
    return _Crop(log_p, kernels, options.iterations)


def _check_image(image: NDArray[Any]) -> None:
    channels = image.shape[2:]
    if (
        image.ndim not in (2, 3)
        or channels not in ((), (1,), (3,))
        or image.dtype != np.uint8
        or not image.size
    ):
        raise ImageError(
            f"The dense CRF was given an image of shape {image.shape} and type "
            f"{image.dtype}; expected is (y, x) or (y, x, 3) of type uint8 with at "
            "least one pixel, so apply an intensity window first.",
            shape=image.shape,
            dtype=str(image.dtype),
        )


def _check_probabilities(probabilities: NDArray[Any], size: tuple[int, int]) -> None:
    shape = probabilities.shape
    if len(shape) != 3 or shape[0] < 2 or shape[1:] != size:
        raise ImageError(
            f"The dense CRF was given probabilities of shape {shape} for an image of "
            f"(y, x) = {size}; expected is (classes, y, x) with two or more classes "
            "and the size of the image.",
            shape=shape,
            size=size,
        )
    # NaN fails every comparison.
    in_range = (probabilities >= -ROUNDING) & (probabilities <= 1 + ROUNDING)
    if not in_range.all():
        value = float(probabilities[~in_range][0])
        raise ImageError(
            f"The dense CRF was given {value} as a probability; expected are numbers "
            "from 0 to 1, so check the map that they come from.",
            value=value,
        )


def chosen_backend(
    backend: CrfBackend, device: torch.device
) -> Literal["pydensecrf", "torch"]:
    """Tell which code infers, as :func:`dense_crf` has it.

    Raises
    ------
    OptionError
        If pydensecrf is asked for and not installed, or the backend is unknown.
    """
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return "torch"
    if backend not in ("auto", "pydensecrf"):
        raise OptionError(
            f"The dense CRF has backend = {backend!r}; give auto, pydensecrf or torch.",
            backend=backend,
        )
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as error:
        if backend == "auto":
            return "torch"
        raise OptionError(
            f"The dense CRF's backend pydensecrf cannot be imported ({error}); install "
            "napari-sparseseg[crf], or choose torch.",
            backend=backend,
        ) from error
    return "pydensecrf"


def _infer_with_pydensecrf(crop: _Crop) -> NDArray[np.float32]:
    """Give the (c, n) marginals."""
    from pydensecrf.densecrf import DenseCRF

    crf = DenseCRF(crop.n_pixels, len(crop.log_p))
    crf.setUnaryEnergy(-crop.log_p)
    for weight, features in crop.kernels:
        crf.addPairwiseEnergy(features, compat=weight)
    return np.array(crf.inference(crop.iterations))


def _batches(crops: list[_Crop]) -> Iterator[list[_Crop]]:
    """Cut a list of crops, in order, into parts for one lattice each."""
    batch: list[_Crop] = []
    n_pixels = 0
    for crop in crops:
        n_pixels += crop.n_pixels
        if batch and (n_pixels > PIXELS_AT_ONCE or crop.kind != batch[0].kind):
            yield batch
            batch, n_pixels = [], crop.n_pixels
        batch.append(crop)
    if batch:
        yield batch


def _infer_with_torch(crops: list[_Crop], device: torch.device) -> list[Tensor]:
    """Give the (n, c) marginals of each crop of a kind, on the CPU."""
    marginals: dict[int, Tensor] = {}
    large = []
    for index, crop in enumerate(crops):
        if crop.n_pixels > EXACT_PIXELS:
            large.append(index)
            continue
        couple = _exact_coupling(crop, device)
        marginals[index] = _mean_field([crop], couple, device)
    if large:
        chosen = [crops[index] for index in large]
        couple = _lattice_coupling(chosen, device)
        joined = _mean_field(chosen, couple, device)
        parts = joined.split([crop.n_pixels for crop in chosen])
        marginals.update(zip(large, parts, strict=True))
    return [marginals[index] for index in range(len(crops))]


def _mean_field(
    crops: list[_Crop],
    couple: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Tensor:
    """Iterate to (n, c) marginals of the pixels of all crops of a kind, on the CPU.

    *couple* sums (n, c) marginals over the pixels, weighted by the kernels.
    """
    log_p = np.concatenate([crop.log_p for crop in crops], axis=1).T
    scores = torch.from_numpy(np.ascontiguousarray(log_p)).to(device)
    marginals = scores.softmax(dim=1)
    for _ in range(crops[0].iterations):
        marginals = (scores + couple(marginals)).softmax(dim=1)
    return marginals.cpu()


def _lattice_coupling(
    crops: list[_Crop], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Couple the pixels of each crop by kernels on a permutohedral lattice."""
    sizes = torch.tensor([crop.n_pixels for crop in crops], device=device)
    groups = torch.arange(len(crops), device=device).repeat_interleave(sizes)
    kernels = []
    for kernel, (weight, _) in enumerate(crops[0].kernels):
        features = np.concatenate([crop.kernels[kernel][1] for crop in crops], axis=1)
        lattice = PermutohedralLattice(torch.from_numpy(features).to(device), groups)
        sums = lattice.filter(torch.ones(len(groups), 1, device=device))
        kernels.append((weight, lattice, sums.rsqrt()))

    def couple(marginals: Tensor) -> Tensor:
        coupled = torch.zeros_like(marginals)
        for weight, lattice, norm in kernels:
            coupled += weight * norm * lattice.filter(norm * marginals)
        return coupled

    return couple


def _exact_coupling(crop: _Crop, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Couple the pixels of one crop by kernels over all pairs."""
    coupling = torch.zeros(crop.n_pixels, crop.n_pixels, device=device)
    for weight, features in crop.kernels:
        squared = torch.zeros_like(coupling)
        # Differences, not a matrix product, in which near pixels of distant features
        # would lose their distance to rounding.
        for feature in torch.from_numpy(features).to(device):
            squared += (feature[:, None] - feature).square_()
        kernel = squared.div_(-2).exp_()
        norm = kernel.sum(dim=1, keepdim=True).rsqrt()
        coupling += weight * norm * kernel * norm.T
    return coupling.matmul
