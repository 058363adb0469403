"""The dense CRF: by hand, in a float64 loop, against pydensecrf on real images."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from skimage.io import imread

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.pseudo_masks import crf
from napari_sparseseg.pseudo_masks.crf import (
    CrfBackend,
    CrfOptions,
    dense_crf,
    dense_crf_of_crops,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Crop = tuple[NDArray[np.float32], NDArray[np.uint8]]

BACKENDS: tuple[CrfBackend, ...] = ("torch", "pydensecrf")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> CrfBackend:
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf.densecrf")
    chosen: CrfBackend = request.param
    return chosen


@pytest.fixture
def on_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch compute small crops on the lattice too."""
    monkeypatch.setattr(crf, "EXACT_PIXELS", 0)


def noise(
    height: int, width: int, n_classes: int = 2, channels: int = 3, seed: int = 0
) -> Crop:
    """Give probabilities and an image."""
    rng = np.random.default_rng(seed)
    p = rng.random((n_classes, height, width), dtype=np.float32) + 0.1
    shape = (height, width, channels) if channels else (height, width)
    return p / p.sum(axis=0), rng.integers(0, 256, shape, dtype=np.uint8)


def by_loops(
    probabilities: NDArray[Any], image: NDArray[np.uint8], options: CrfOptions
) -> NDArray[np.float64]:
    """Mean field with one number after the other, in float64."""
    n_classes, height, width = probabilities.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    colours = image.reshape(height, width, -1).astype(float)
    theta_alpha = options.theta_alpha or math.sqrt(width * height) / 4

    def appearance(a: tuple[int, int], b: tuple[int, int]) -> float:
        distance = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / theta_alpha**2
        difference = sum((colours[a] - colours[b]) ** 2) / options.theta_beta**2
        return math.exp(-(distance + difference) / 2)

    def smoothness(a: tuple[int, int], b: tuple[int, int]) -> float:
        distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
        return math.exp(-distance / (2 * options.theta_gamma**2))

    coupling = np.zeros((len(places), len(places)))
    for weight, kernel in ((options.w1, appearance), (options.w2, smoothness)):
        k = np.array([[kernel(a, b) for b in places] for a in places])
        sums = k.sum(axis=1)
        for i in range(len(places)):
            for j in range(len(places)):
                coupling[i, j] += weight * k[i, j] / math.sqrt(sums[i] * sums[j])
    log_p = np.log(np.clip(probabilities.astype(float), 1e-5, 1)).reshape(n_classes, -1)
    q = np.exp(log_p) / np.exp(log_p).sum(axis=0)
    for _ in range(options.iterations):
        scores = log_p + q @ coupling
        q = np.exp(scores) / np.exp(scores).sum(axis=0)
    marginals: NDArray[np.float64] = q.reshape(probabilities.shape)
    return marginals


def test_two_pixels_by_hand() -> None:
    """Kernel [1, exp(-1/2)] with sums 1.6065, so 0.62246 to itself, 0.37754 across."""
    p = np.array([[[0.9, 0.5]], [[0.1, 0.5]]])
    options = CrfOptions(w1=0, w2=1, theta_gamma=1, iterations=1)
    q = dense_crf(p, np.zeros((1, 2), np.uint8), options, "torch")
    first = math.log(9) + 0.62246 * 0.8
    second = 0.37754 * 0.8
    expected = [1 / (1 + math.exp(-first)), 1 / (1 + math.exp(-second))]
    assert q[0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert q.dtype == np.float32


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize(
    "options",
    [
        CrfOptions(),
        CrfOptions(theta_alpha=2.5, theta_beta=60, theta_gamma=2, w1=5, w2=1),
        CrfOptions(theta_beta=200, w2=0, iterations=2),
        CrfOptions(w1=0, iterations=8),
    ],
)
def test_small_crops_are_exact(channels: int, options: CrfOptions) -> None:
    p, image = noise(6, 7, 3, channels)
    p[0, 2, 3], p[1, 2, 3], p[2, 2, 3] = 0, 0.25, 0.75
    q = dense_crf(p, image, options, "torch")
    np.testing.assert_allclose(q, by_loops(p, image, options), atol=1e-5)


def test_a_weight_of_0_leaves_a_kernel_out(backend: CrfBackend) -> None:
    p, image = noise(5, 6)
    options = CrfOptions(w1=0, w2=0)
    np.testing.assert_allclose(dense_crf(p, image, options, backend), p, atol=1e-5)


def test_a_grey_value_counts_once_not_as_three_colours() -> None:
    p, image = noise(6, 6, channels=0)
    options = CrfOptions(theta_beta=100)
    grey = dense_crf(p, image, options, "torch")
    np.testing.assert_array_equal(
        dense_crf(p, image[..., None], options, "torch"), grey
    )
    colour = dense_crf(p, np.repeat(image[..., None], 3, axis=2), options, "torch")
    assert np.abs(colour - grey).max() > 1e-3


def test_features_are_those_that_pydensecrf_makes_of_an_image() -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    p, image = noise(30, 41, 4)
    theirs = densecrf.DenseCRF2D(41, 30, 4)
    theirs.setUnaryEnergy(-np.log(p).reshape(4, -1))
    theirs.addPairwiseGaussian(sxy=2, compat=1.5)
    theirs.addPairwiseBilateral(sxy=9, srgb=70, rgbim=image, compat=6)
    expected = np.array(theirs.inference(5)).reshape(p.shape)
    options = CrfOptions(theta_alpha=9, theta_beta=70, theta_gamma=2, w1=6, w2=1.5)
    ours = dense_crf(p, image, options, "pydensecrf")
    np.testing.assert_allclose(ours, expected, atol=1e-4)


# Both backends on real images.


def simulated(truth: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
    """Give what a network may say: truth, blurred and noisy; (c, y, x)."""
    rng = np.random.default_rng(seed)
    blurred = np.stack([gaussian_filter(each.astype(float), 4) for each in truth])
    coarse = gaussian_filter(rng.normal(size=truth.shape), (0, 3, 3)) * 1.5
    p = np.clip(blurred + coarse, 0.02, None)
    shares: NDArray[np.float32] = (p / p.sum(axis=0)).astype(np.float32)
    return shares


def ct_boxes(folder: Path) -> list[Crop]:
    """Give crops of liver and tumour boxes, windowed, large and small."""
    crops: list[Crop] = []
    for path in sorted((folder / "boxes").iterdir())[4:20:3]:
        hu = tifffile.imread(folder / "images" / f"{path.stem}.tif").astype(float)
        truth = imread(folder / "dense" / f"{path.stem}.png")
        grey = (np.clip((hu + 160) / 400, 0, 1) * 255).round().astype(np.uint8)
        for box in json.loads(path.read_text())[:2]:
            y0, x0, y1, x1 = box["box_yx"]
            y1, x1 = min(y1, y0 + 96), min(x1, x0 + 96)
            of_class = truth[y0:y1, x0:x1] == box["class"]
            p = simulated(np.stack([~of_class, of_class]), len(crops))
            crops.append((p, grey[y0:y1, x0:x1]))
    return crops


def stained_tiles(folder: Path) -> list[Crop]:
    """Give parts of tiles with the probabilities of all classes in them."""
    crops: list[Crop] = []
    for path in sorted((folder / "images").iterdir())[:4]:
        image = imread(path)[64:160, 64:160, :3]
        truth = imread(folder / "dense" / f"{path.stem}.png")[64:160, 64:160]
        one_hot = np.stack([truth == value for value in range(1, 9)])
        crops.append((simulated(one_hot, len(crops)), image))
    return crops


@pytest.mark.usefixtures("on_lattice")
@pytest.mark.parametrize("kind", ["CT boxes", "stained tiles"])
def test_on_the_lattice_torch_agrees_with_pydensecrf(data_dir: Path, kind: str) -> None:
    pytest.importorskip("pydensecrf.densecrf")
    crops = (
        ct_boxes(data_dir / "ircadb" / "train")
        if kind == "CT boxes"
        else stained_tiles(data_dir / "adp" / "train")
    )
    probabilities, images = zip(*crops, strict=True)
    ours = dense_crf_of_crops(probabilities, images, backend="torch")
    theirs = dense_crf_of_crops(probabilities, images, backend="pydensecrf")
    n_pixels = n_same = 0
    difference = 0.0
    n_moved = 0
    for p, a, b in zip(probabilities, ours, theirs, strict=True):
        n_pixels += a[0].size
        n_same += int((a.argmax(axis=0) == b.argmax(axis=0)).sum())
        n_moved += int((b.argmax(axis=0) != p.argmax(axis=0)).sum())
        difference += float(np.abs(a - b).mean()) * a[0].size
    assert n_same / n_pixels >= 0.99
    assert difference / n_pixels <= 0.01
    # Else the two could agree by doing nothing.
    assert n_moved / n_pixels > 0.01


def test_exact_sums_are_near_to_the_lattice_on_small_real_boxes(data_dir: Path) -> None:
    crops = [
        (np.ascontiguousarray(p[:, 8:40, 8:40]), image[8:40, 8:40])
        for p, image in ct_boxes(data_dir / "ircadb" / "train")
        if min(image.shape) >= 40
    ]
    assert crops
    probabilities, images = zip(*crops, strict=True)
    sums = dense_crf_of_crops(probabilities, images, backend="torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crf, "EXACT_PIXELS", 0)
        lattice = dense_crf_of_crops(probabilities, images, backend="torch")
    same = [
        (a.argmax(axis=0) == b.argmax(axis=0)).mean()
        for a, b in zip(sums, lattice, strict=True)
    ]
    assert np.mean(same) > 0.95


def test_labels_follow_the_edge_of_the_image(backend: CrfBackend) -> None:
    """A map that is coarse by 4 pixels, and noisy, on an image with a sharp edge."""
    rng = np.random.default_rng(0)
    for side in (24, 40):
        image = rng.integers(95, 105, (side, side)).astype(np.uint8)
        truth = np.hypot(*(np.mgrid[:side, :side] - side / 2 + 0.5)) < side / 3
        image[truth] += 60
        p = gaussian_filter(truth.astype(np.float32), 4)
        p = np.clip(p + rng.normal(0, 0.1, p.shape), 0.05, 0.95)
        before = ((p > 0.5) != truth).mean()
        q = dense_crf(np.stack([1 - p, p]), image, backend=backend)
        after = ((q[1] > 0.5) != truth).mean()
        assert after < before / 2


# Many crops.


@pytest.mark.parametrize("pixels_at_once", [1, 3000, 2**19])
def test_many_crops_at_once_are_the_same_as_one_by_one(
    pixels_at_once: int, backend: CrfBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf, "EXACT_PIXELS", 200)
    monkeypatch.setattr(crf, "PIXELS_AT_ONCE", pixels_at_once)
    crops = [
        noise(24, 31, seed=1),
        noise(8, 9, seed=2),
        noise(40, 20, seed=3),
        noise(25, 25, 3, seed=4),
        noise(25, 26, 2, channels=0, seed=5),
        noise(1, 1, seed=6),
        noise(30, 30, 2, channels=1, seed=7),
    ]
    probabilities, images = zip(*crops, strict=True)
    together = dense_crf_of_crops(probabilities, images, backend=backend)
    for (p, image), q in zip(crops, together, strict=True):
        assert q.shape == p.shape
        assert q.dtype == np.float32
        alone = dense_crf(p, image, backend=backend)
        np.testing.assert_allclose(q, alone, atol=1e-5)


def test_each_crop_may_have_options_of_its_own(
    backend: CrfBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf, "EXACT_PIXELS", 200)
    options = [
        CrfOptions(theta_alpha=2),
        CrfOptions(theta_alpha=9, theta_gamma=0.5),
        CrfOptions(iterations=1),
        CrfOptions(w1=0),
        CrfOptions(w1=0, w2=1, iterations=2),
        CrfOptions(theta_beta=60, iterations=9),
    ]
    crops = [noise(20, 21 + n, seed=n) for n in range(5)] + [noise(8, 9)]
    probabilities, images = zip(*crops, strict=True)
    together = dense_crf_of_crops(probabilities, images, options, backend)
    for (p, image), each, q in zip(crops, options, together, strict=True):
        alone = dense_crf(p, image, each, backend)
        np.testing.assert_allclose(q, alone, atol=1e-5)


def test_no_crop_at_all_gives_none() -> None:
    assert dense_crf_of_crops([], [], backend="torch") == []


def test_arguments_are_left_as_they_are(backend: CrfBackend) -> None:
    p, image = noise(34, 33)
    copies = p.copy(), image.copy()
    p.flags.writeable = image.flags.writeable = False
    dense_crf(p, image, backend=backend)
    np.testing.assert_array_equal(p, copies[0])
    np.testing.assert_array_equal(image, copies[1])


def test_parts_of_larger_arrays_are_taken(backend: CrfBackend) -> None:
    p, image = noise(40, 80)
    part = dense_crf(p[:, ::2, 5:50], image[::2, 5:50], backend=backend)
    whole = dense_crf(
        np.ascontiguousarray(p[:, ::2, 5:50]),
        np.ascontiguousarray(image[::2, 5:50]),
        backend=backend,
    )
    np.testing.assert_array_equal(part, whole)


# Odd crops.


@pytest.mark.parametrize("side", [5, 40])
def test_a_constant_crop_is_smoothed_by_distance_alone(
    side: int, backend: CrfBackend
) -> None:
    image = np.full((side, side), 70, np.uint8)
    p = np.full((2, side, side), 0.2, np.float32)
    p[0] = 0.8
    p[:, side // 2, side // 2] = 0.4, 0.6
    q = dense_crf(p, image, backend=backend)
    np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-5)
    assert (q[0] > 0.8).all()
    same = np.full((2, side, side), 0.5, np.float32)
    np.testing.assert_allclose(dense_crf(same, image, backend=backend), 0.5, atol=1e-5)


@pytest.mark.usefixtures("on_lattice")
def test_a_constant_crop_on_the_lattice() -> None:
    same = np.full((3, 4, 5), 1 / 3, np.float32)
    q = dense_crf(same, np.zeros((4, 5), np.uint8), backend="torch")
    np.testing.assert_allclose(q, 1 / 3, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_in_a_crop_of_one_pixel_the_likeliest_class_becomes_likelier(
    backend: CrfBackend, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact:
        monkeypatch.setattr(crf, "EXACT_PIXELS", 0)
    p = np.array([0.2, 0.5, 0.3]).reshape(3, 1, 1)
    q = dense_crf(p, np.array([[[3, 200, 9]]], np.uint8), backend=backend)
    assert q[1, 0, 0] > 0.5
    assert q.sum() == pytest.approx(1, abs=1e-5)
    # A pixel alone is normalised to a coupling of 1 to itself for each kernel.
    options = CrfOptions(iterations=1)
    scores = np.log([0.2, 0.5, 0.3]) + 7 * np.array([0.2, 0.5, 0.3])
    expected = np.exp(scores) / np.exp(scores).sum()
    q = dense_crf(p, np.zeros((1, 1), np.uint8), options, backend)
    np.testing.assert_allclose(q[:, 0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (2, 800)])
def test_a_crop_may_be_a_line(shape: tuple[int, int], backend: CrfBackend) -> None:
    p, image = noise(*shape)
    q = dense_crf(p, image, backend=backend)
    np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-5)


def test_probabilities_of_0_and_1_stay_finite(backend: CrfBackend) -> None:
    p = np.zeros((2, 40, 40))
    p[0, :20], p[1, 20:] = 1, 1
    _, image = noise(40, 40)
    q = dense_crf(p, image, backend=backend)
    assert np.isfinite(q).all()
    np.testing.assert_array_equal(q.argmax(axis=0), p.argmax(axis=0))


# Bad input.


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value: float) -> None:
    p, image = noise(4, 5)
    p[1, 2, 3] = value
    with pytest.raises(ImageError, match=f"given {value:.1f}.* as a probability"):
        dense_crf(p, image)


def test_rounding_beyond_1_is_no_error() -> None:
    p, image = noise(4, 5)
    p[0, 0, 0], p[1, 0, 0] = 1 + 1e-6, -1e-6
    assert np.isfinite(dense_crf(p, image, backend="torch")).all()


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 5), np.nan, np.float32),
        np.zeros((4, 5), np.int16),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((4, 5, 3, 1), np.uint8),
        np.zeros((20,), np.uint8),
        np.zeros((0, 5), np.uint8),
    ],
)
def test_other_images_are_refused(image: NDArray[Any]) -> None:
    p, _ = noise(4, 5)
    with pytest.raises(ImageError, match="apply an intensity window first"):
        dense_crf(p, image)


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 4, 5), (4, 5), (2, 4, 5, 1)])
def test_probabilities_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    _, image = noise(4, 5)
    with pytest.raises(ImageError, match="with two or more classes"):
        dense_crf(np.full(shape, 0.5), image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta_alpha": 0.0}, "theta_alpha = 0.0; give a number above 0"),
        ({"theta_beta": -1.0}, "theta_beta = -1.0; give a number above 0"),
        ({"theta_gamma": math.nan}, "theta_gamma = nan; give a number above 0"),
        ({"w1": -0.5}, "w1 = -0.5; give a number from 0"),
        ({"w2": math.inf}, "w2 = inf; give a number from 0"),
        ({"iterations": 0}, "iterations = 0; give an integer from 1"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(CrfOptions(), **change)


def test_an_unknown_backend_is_refused() -> None:
    p, image = noise(4, 5)
    with pytest.raises(OptionError, match="give auto, pydensecrf or torch"):
        dense_crf(p, image, backend="cuda")  # type: ignore[arg-type]


# Which backend.


class FakeCrf:
    """Stands for pydensecrf's; says that the first class is right everywhere."""

    def __init__(self, n_pixels: int, n_classes: int) -> None:
        self.shape = n_classes, n_pixels

    def setUnaryEnergy(self, energy: NDArray[np.float32]) -> None:
        assert energy.shape == self.shape

    def addPairwiseEnergy(self, features: NDArray[np.float32], compat: float) -> None:
        assert features.shape[1] == self.shape[1]

    def inference(self, iterations: int) -> NDArray[np.float32]:
        q = np.zeros(self.shape, np.float32)
        q[0] = 1
        return q


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be a pydensecrf, whether or not there is one."""
    module = ModuleType("pydensecrf.densecrf")
    module.DenseCRF = FakeCrf  # type: ignore[attr-defined]
    package = ModuleType("pydensecrf")
    package.densecrf = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydensecrf", package)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", module)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no pydensecrf."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)


@pytest.mark.usefixtures("fake")
def test_auto_takes_pydensecrf_on_a_cpu_where_it_is_there() -> None:
    p, image = noise(4, 5)
    assert (dense_crf(p, image)[0] == 1).all()
    assert (dense_crf(p, image, backend="pydensecrf")[0] == 1).all()
    assert (dense_crf(p, image, backend="torch")[0] < 1).any()


@pytest.mark.usefixtures("fake")
def test_auto_takes_torch_on_any_other_device() -> None:
    for device in ("cuda", "mps", "meta"):
        assert crf.chosen_backend("auto", torch.device(device)) == "torch"
        assert crf.chosen_backend("pydensecrf", torch.device(device)) == "pydensecrf"


@pytest.mark.usefixtures("missing")
def test_without_pydensecrf_auto_takes_torch() -> None:
    p, image = noise(4, 5)
    np.testing.assert_array_equal(
        dense_crf(p, image), dense_crf(p, image, backend="torch")
    )


@pytest.mark.usefixtures("missing")
def test_pydensecrf_that_is_not_there_is_named_with_what_to_install() -> None:
    p, image = noise(4, 5)
    with pytest.raises(OptionError, match=r"napari-sparseseg\[crf\], or choose torch"):
        dense_crf(p, image, backend="pydensecrf")


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for side in (20, 60):
        p, image = noise(side, side, 3)
        on_cpu = dense_crf(p, image, backend="torch")
        on_gpu = dense_crf(p, image, backend="torch", device="cuda")
        np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)
