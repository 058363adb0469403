"""Prediction: the same labels whatever the tiles, and no more read than needed."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.annotations import ClassTable
from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.inputs.normalisation import Normalisation, fit_normalisation
from napari_sparseseg.inputs.resolution import shrink, whole, working_shape
from napari_sparseseg.networks.model import ModelInfo, SegmentationModel
from napari_sparseseg.networks.pixel_head import HeadNetwork
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec, build_network
from napari_sparseseg.networks.scoring import ScoringNetwork
from napari_sparseseg.prediction import predictor
from napari_sparseseg.prediction.predictor import (
    Budget,
    PredictOptions,
    TileDone,
    iter_predict,
    parts_on,
    pixel_ratio,
    predict_image,
)
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.networks.model import Part

SMALL = NetworkSpec("unet", {"filters": 4, "levels": 3, "norm": "batch"})
EIGHT_BIT = Normalisation("range", 0, 255)
CLASSES = (1, 2, 3)


class Fake(ScoringNetwork):
    """A network that does as told, and notes the shapes it is given.

    With ``scores`` None the channels are the scores.
    """

    def __init__(
        self,
        scores: Callable[[Tensor], Tensor] | None = None,
        *,
        halo: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.scores = scores
        self.reach = halo
        self.step = stride
        self.fields: list[tuple[int, int]] = []

    @property
    def halo(self) -> int:
        return self.reach

    @property
    def stride(self) -> int:
        return self.step

    def forward(self, x: Tensor) -> Tensor:
        self.fields.append((x.shape[-2], x.shape[-1]))
        return x if self.scores is None else self.scores(x)


class ReadOnDemand:
    """An image of which only parts can be read, each noted."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.shape = pixels.shape
        self.read: list[Region] = []

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise AssertionError("the whole image was read")

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = key
        region = (rows.start, columns.start, rows.stop, columns.stop)
        assert 0 <= rows.start < rows.stop <= self.shape[0]
        assert 0 <= columns.start < columns.stop <= self.shape[1]
        self.read.append(region)
        part: NDArray[Any] = self.pixels[key]
        return part


def model_of(
    module: ScoringNetwork,
    *,
    values: Iterable[int] = CLASSES,
    in_channels: int = 3,
    scale: float = 1.0,
    normalisation: Normalisation = EIGHT_BIT,
    um_per_px: float | None = None,
) -> SegmentationModel:
    info = ModelInfo(
        classes=ClassTable.from_values(values),
        in_channels=in_channels,
        normalisation=normalisation,
        scales={"network": scale},
        shown="network",
        network=SMALL,
        um_per_px=um_per_px,
    )
    return SegmentationModel(info, {"network": module})


def random_image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def at_working_resolution(image: NDArray[Any], scale: float) -> Tensor:
    x = fit_normalisation([image]).apply(image)
    return shrink(
        x, whole(image.shape), whole(working_shape(image.shape, scale)), scale
    )


@torch.inference_mode()
def even_out(module: nn.Module, last: nn.Conv2d | nn.Linear, x: Tensor) -> None:
    """Change the last layer so that on *x* every class wins somewhere."""
    scores = module(x[None])[0].flatten(1)
    deviation, median = scores.std(dim=1), scores.median(dim=1).values
    assert last.bias is not None
    last.weight.div_(deviation.reshape(-1, *[1] * (last.weight.ndim - 1)))
    last.bias.sub_(median).div_(deviation)


def random_head(image: NDArray[Any], scale: float) -> SegmentationModel:
    """Give a head with random weights whose labels vary over the image."""
    torch.manual_seed(0)
    x = at_working_resolution(image, scale)
    module = HeadNetwork(len(x), len(CLASSES)).eval()
    with torch.inference_mode():
        features = module.features(x[None])[0].flatten(1)
        module.head.mean.copy_(features.mean(dim=1))
        module.head.deviation.copy_(features.std(dim=1) + 1e-3)
    last = module.head.layers[-1]
    assert isinstance(last, nn.Linear)
    even_out(module, last, x)
    normalisation = fit_normalisation([image])
    return model_of(
        module, in_channels=len(x), scale=scale, normalisation=normalisation
    )


def random_network(
    image: NDArray[Any], scale: float, spec: NetworkSpec = SMALL
) -> SegmentationModel:
    """Give a network with random weights whose labels vary over the image."""
    torch.manual_seed(0)
    x = at_working_resolution(image, scale)
    module = build_network(spec, len(x), len(CLASSES)).eval()
    last = module.network.classifier
    assert isinstance(last, nn.Conv2d)
    even_out(module, last, x)
    normalisation = fit_normalisation([image])
    return model_of(
        module, in_channels=len(x), scale=scale, normalisation=normalisation
    )


def head_and_network(
    image: NDArray[Any], head_scale: float, network_scale: float
) -> SegmentationModel:
    """Give a model whose head and network, both random, predict together."""
    head = random_head(image, head_scale)
    network = random_network(image, network_scale)
    info = replace(
        network.info,
        shown="both",
        scales={"head": head_scale, "network": network_scale},
    )
    parts: dict[Part, ScoringNetwork] = {
        "head": head.parts["network"],
        "network": network.parts["network"],
    }
    return SegmentationModel(info, parts)


def assert_tiles_do_not_matter(
    model: SegmentationModel, image: NDArray[Any], tiles: Iterable[int]
) -> None:
    labels, maps = predict_image(
        model, image, PredictOptions(tile=10_000, probabilities=True)
    )
    assert maps is not None
    shares = [(labels == value).mean() for value in CLASSES]
    assert min(shares) > 0.05
    for tile in tiles:
        options = PredictOptions(tile=tile, probabilities=True)
        tiled_labels, tiled_maps = predict_image(model, image, options)
        assert (tiled_labels == labels).mean() >= 0.9999
        assert tiled_maps is not None
        np.testing.assert_allclose(tiled_maps, maps, atol=5e-4)


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    return tissue_phantom(0, (301, 333)).image


@pytest.fixture(scope="module")
def glands(data_dir: Path) -> NDArray[np.uint8]:
    path = min((data_dir / "glas" / "test" / "images").iterdir())
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class TestTilesDoNotMatter:
    @pytest.mark.parametrize("make", [random_head, random_network])
    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 1 / 4, 0.3, 1.5])
    def test_on_the_phantom(
        self,
        tissue: NDArray[np.uint8],
        make: Callable[[NDArray[Any], float], SegmentationModel],
        scale: float,
    ) -> None:
        image = tissue if scale <= 1 else tissue[:130, :171]
        assert_tiles_do_not_matter(make(image, scale), image, (48, 128, 256))

    @pytest.mark.parametrize("make", [random_head, random_network])
    @pytest.mark.parametrize("scale", [1.0, 1 / 2])
    def test_on_grey_images(
        self,
        tissue: NDArray[np.uint8],
        make: Callable[[NDArray[Any], float], SegmentationModel],
        scale: float,
    ) -> None:
        grey = tissue[:200, :, 1].astype(np.int16) * 10 - 1000
        assert_tiles_do_not_matter(make(grey, scale), grey, (33, 64, 128))

    @pytest.mark.parametrize(
        "spec",
        [
            NetworkSpec("unet-vgg16", {"filters": 4, "levels": 3}),
            NetworkSpec(
                "unet-resnet50", {"encoder": "resnet18", "filters": 2, "levels": 3}
            ),
            NetworkSpec("vgg-fcn", {"narrowing": 16}),
            NetworkSpec("vgg-fcn-1", {"narrowing": 16}),
        ],
        ids=lambda spec: spec.name,
    )
    def test_of_networks_with_an_encoder(
        self, tissue: NDArray[np.uint8], spec: NetworkSpec
    ) -> None:
        image = tissue[:203, :230]
        module = random_network(image, 1.0, spec)
        assert module.parts["network"].halo < 80
        assert_tiles_do_not_matter(module, image, (41, 64))

    @pytest.mark.parametrize("scale", [1 / 2, 1 / 4, 0.3])
    def test_on_a_real_image(self, glands: NDArray[np.uint8], scale: float) -> None:
        head = random_head(glands, scale)
        assert_tiles_do_not_matter(head, glands, (128, 256))
        network = random_network(glands, scale, PRESETS["unet"]["light"])
        assert_tiles_do_not_matter(network, glands, (128, 256))

    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 0.3, 1.5])
    @pytest.mark.parametrize("halo", [0, 1, 3])
    def test_where_a_network_sees_all_of_its_halo(
        self, scale: float, halo: int
    ) -> None:
        def sharp_edges(x: Tensor) -> Tensor:
            return 9 * F.max_pool2d(x, 2 * halo + 1, stride=1, padding=halo)

        image = random_image(60, 71, 3)
        results = [
            predict_image(
                model_of(Fake(sharp_edges, halo=halo), scale=scale),
                image,
                PredictOptions(tile=tile),
            )[0]
            for tile in (5, 16, 1000)
        ]
        for labels in results[:-1]:
            np.testing.assert_array_equal(labels, results[-1])

    @pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (2, 3), (37, 5)])
    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 0.3, 1.5, 4.0])
    def test_on_images_smaller_than_a_stride(
        self, shape: tuple[int, int], scale: float
    ) -> None:
        torch.manual_seed(0)
        model = model_of(build_network(SMALL, 3, 3), scale=scale)
        image = random_image(*shape, 3)
        options = PredictOptions(tile=1000, probabilities=True)
        labels, maps = predict_image(model, image, options)
        assert labels.shape == shape
        assert set(np.unique(labels)) <= set(CLASSES)
        for tile in (16, 1):
            options = PredictOptions(tile=tile, probabilities=True)
            _, tiled_maps = predict_image(model, image, options)
            assert maps is not None
            assert tiled_maps is not None
            np.testing.assert_allclose(tiled_maps, maps, atol=1e-4)


class TestHeadAndNetworkTogether:
    def test_give_the_mean_of_their_probabilities(
        self, tissue: NDArray[np.uint8]
    ) -> None:
        image = tissue[:150, :170]
        both = head_and_network(image, 0.5, 0.3)
        options = PredictOptions(probabilities=True)
        labels, maps = predict_image(both, image, options)
        _, by_head = predict_image(both.showing("head"), image, options)
        _, by_network = predict_image(both.showing("network"), image, options)
        assert maps is not None
        assert by_head is not None
        assert by_network is not None
        np.testing.assert_allclose(maps, (by_head + by_network) / 2, atol=1e-6)
        np.testing.assert_array_equal(np.array(CLASSES)[maps.argmax(axis=0)], labels)
        assert np.abs(by_head - by_network).mean() > 0.05

    @pytest.mark.parametrize("scales", [(0.5, 0.3), (0.25, 1.0), (1 / 3, 1 / 3)])
    def test_do_not_depend_on_tiles(
        self, tissue: NDArray[np.uint8], scales: tuple[float, float]
    ) -> None:
        both = head_and_network(tissue, *scales)
        assert_tiles_do_not_matter(both, tissue, (50, 128))


class TestParts:
    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 0.3, 1.5, 4.0])
    @pytest.mark.parametrize("shape", [(60, 71), (171, 3), (1, 1)])
    def test_tile_the_image_and_add_up(
        self, shape: tuple[int, int], scale: float
    ) -> None:
        times = np.zeros(shape, int)
        shares: list[float] = []
        model = model_of(Fake(), scale=scale)
        for tile in (1, 16, 256):
            times[:] = 0
            shares.clear()
            options = PredictOptions(tile=tile)
            for part in iter_predict(model, random_image(*shape, 3), options):
                y0, x0, y1, x1 = part.region
                times[y0:y1, x0:x1] += 1
                assert part.labels.shape == (y1 - y0, x1 - x0)
                assert part.probabilities is None
                assert part.labels.size
                shares.append(part.share)
            assert (times == 1).all()
            assert shares == sorted(shares)
            assert shares[-1] == 1

    def test_are_the_whole(self) -> None:
        model = model_of(Fake())
        image = random_image(40, 50, 3)
        options = PredictOptions(tile=16, probabilities=True)
        labels, maps = predict_image(model, image, options)
        assert maps is not None
        for part in iter_predict(model, image, options):
            y0, x0, y1, x1 = part.region
            np.testing.assert_array_equal(part.labels, labels[y0:y1, x0:x1])
            assert part.probabilities is not None
            np.testing.assert_array_equal(part.probabilities, maps[:, y0:y1, x0:x1])


class TestReading:
    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 1 / 4, 0.3, 1.5])
    @pytest.mark.parametrize(("halo", "stride"), [(0, 1), (5, 4), (26, 1)])
    def test_reads_what_a_tile_sees_and_little_more(
        self, scale: float, halo: int, stride: int
    ) -> None:
        image = ReadOnDemand(random_image(301, 333, 3))
        module = Fake(halo=halo, stride=stride)
        model = model_of(module, scale=scale)
        parts = list(iter_predict(model, image, PredictOptions(tile=32)))
        assert len(parts) == len(image.read)
        # The halo, up to a stride, and a pixel each for shrinking and enlarging.
        margin = (halo + stride + 2) / scale + 3
        for part, read in zip(parts, image.read, strict=True):
            assert all(part.region[axis] - read[axis] <= margin for axis in (0, 1))
            assert all(read[axis] - part.region[axis] <= margin for axis in (2, 3))

    def test_starts_at_once_on_an_image_larger_than_memory(self) -> None:
        # As many numbers as 30 GB hold, of which only one is stored.
        image = np.broadcast_to(np.array([3, 2, 1], np.uint8), (100_000, 100_000, 3))
        image_read = ReadOnDemand(image)
        view = (70_000, 20_000, 70_100, 20_100)
        options = PredictOptions(tile=2048, view=view)
        part = next(iter_predict(model_of(Fake()), image_read, options))
        assert part.region[0] <= 70_050 < part.region[2]
        assert part.region[1] <= 20_050 < part.region[3]
        assert len(image_read.read) == 1
        assert (part.labels == 1).all()

    def test_closing_the_generator_ends_the_work(self) -> None:
        image = ReadOnDemand(random_image(100, 100, 3))
        module = Fake()
        parts = iter_predict(model_of(module), image, PredictOptions(tile=20))
        for _ in range(3):
            next(parts)
        parts.close()  # type: ignore[attr-defined]
        assert list(parts) == []
        assert len(module.fields) == len(image.read) == 3
        assert not torch.is_inference_mode_enabled()

    def test_between_parts_the_caller_may_train(self) -> None:
        weight = torch.ones(1, requires_grad=True)
        for _ in iter_predict(model_of(Fake()), random_image(40, 40, 3)):
            (weight * 2).sum().backward()
        assert weight.grad is not None


def centre_distance(part: TileDone, view: Region) -> float:
    y0, x0, y1, x1 = part.region
    middle = (view[0] + view[2]) / 2, (view[1] + view[3]) / 2
    return math.dist(((y0 + y1) / 2, (x0 + x1) / 2), middle)


def is_seen(part: TileDone, view: Region) -> bool:
    y0, x0, y1, x1 = part.region
    return y0 < view[2] and view[0] < y1 and x0 < view[3] and view[1] < x1


class TestView:
    @pytest.mark.parametrize("scale", [1.0, 1 / 2, 1 / 4])
    def test_what_is_seen_comes_first_from_its_centre_outwards(
        self, scale: float
    ) -> None:
        view = (70, 130, 170, 250)
        options = PredictOptions(tile=int(40 * scale), view=view)
        image = random_image(320, 400, 3)
        parts = list(iter_predict(model_of(Fake(), scale=scale), image, options))
        assert len(parts) == 80
        seen = [is_seen(part, view) for part in parts]
        assert seen == sorted(seen, reverse=True)
        assert 12 <= sum(seen) < 25
        far = [centre_distance(part, view) for part in parts]
        # The view is brought to the working grid, to within a pixel of it.
        ahead = [max(far[:n]) for n in range(1, sum(seen) + 1)]
        assert all(a <= b + 2 / scale for a, b in zip(ahead, far, strict=False))
        assert far[0] == min(far)

    def test_does_not_change_the_labels(self, tissue: NDArray[np.uint8]) -> None:
        model = random_network(tissue, 0.5)
        plain, _ = predict_image(model, tissue, PredictOptions(tile=64))
        options = PredictOptions(tile=64, view=(100, 100, 200, 180))
        viewed, _ = predict_image(model, tissue, options)
        np.testing.assert_array_equal(viewed, plain)

    def test_still_comes_first_when_tiles_are_cut(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, clock = slow_module(1e-6)
        monkeypatch.setattr(predictor, "time", clock)
        view = (150, 150, 290, 290)
        options = PredictOptions(tile=128, quantum_s=2e-3, view=view)
        image = random_image(512, 512, 3)
        parts = list(iter_predict(model_of(module), image, options))
        seen = [is_seen(part, view) for part in parts]
        assert seen == sorted(seen, reverse=True)
        assert seen.count(True) > 9

    @pytest.mark.parametrize(
        "view", [(-50, -50, 20, 20), (900, 900, 1000, 1000), (10, 10, 10, 10)]
    )
    def test_may_lie_beside_the_image(self, view: Region) -> None:
        image = random_image(100, 120, 3)
        model = model_of(Fake())
        plain, _ = predict_image(model, image, PredictOptions(tile=32))
        viewed, _ = predict_image(model, image, PredictOptions(tile=32, view=view))
        np.testing.assert_array_equal(viewed, plain)


class TestRegion:
    @pytest.mark.parametrize(
        "region", [(0, 0, 64, 300), (101, 57, 203, 58), (37, 30, 130, 171)]
    )
    def test_is_predicted_as_within_the_whole(
        self, tissue: NDArray[np.uint8], region: Region
    ) -> None:
        model = random_network(tissue, 0.5)
        options = PredictOptions(tile=64, probabilities=True)
        whole_labels, whole_maps = predict_image(model, tissue, options)
        labels, maps = predict_image(model, tissue, replace(options, region=region))
        assert whole_maps is not None
        assert maps is not None
        y0, x0, y1, x1 = region
        inside = np.zeros(labels.shape, bool)
        inside[y0:y1, x0:x1] = True
        np.testing.assert_array_equal(labels[inside], whole_labels[inside])
        np.testing.assert_allclose(maps[:, inside], whole_maps[:, inside], atol=1e-5)
        assert not labels[~inside].any()
        assert not maps[:, ~inside].any()

    def test_is_tiled_and_its_share_rises_to_one(self) -> None:
        options = PredictOptions(tile=10, region=(5, 7, 45, 60), view=(20, 20, 22, 22))
        image = random_image(100, 80, 3)
        parts = list(iter_predict(model_of(Fake()), image, options))
        count = np.zeros((100, 80), int)
        for part in parts:
            y0, x0, y1, x1 = part.region
            count[y0:y1, x0:x1] += 1
        assert (count[5:45, 7:60] == 1).all()
        assert count.sum() == 40 * 53
        shares = [part.share for part in parts]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert centre_distance(parts[0], (20, 20, 22, 22)) < 10

    def test_reads_no_more_than_it_needs(self) -> None:
        image = ReadOnDemand(random_image(600, 600, 3))
        region = (300, 310, 340, 350)
        options = PredictOptions(region=region)
        list(iter_predict(model_of(Fake(halo=8)), image, options))
        assert image.read == [(292, 302, 348, 358)]

    def test_beyond_the_image_is_cut(self) -> None:
        image, model = random_image(50, 60, 3), model_of(Fake())
        plain, _ = predict_image(model, image)
        options = PredictOptions(region=(-10, -10, 99, 99))
        np.testing.assert_array_equal(predict_image(model, image, options)[0], plain)

    @pytest.mark.parametrize("region", [(50, 0, 60, 60), (9, 9, 9, 20), (20, 5, 9, 9)])
    def test_without_a_pixel_of_the_image_is_refused(self, region: Region) -> None:
        options = PredictOptions(region=region)
        with pytest.raises(OptionError, match="has no pixel in the image of 50 x 60"):
            list(iter_predict(model_of(Fake()), random_image(50, 60, 3), options))


class TestBudget:
    def test_knows_the_speed_before_the_first_tile_and_learns(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, clock = slow_module(1e-6)
        monkeypatch.setattr(predictor, "time", clock)
        image = random_image(512, 512, 3)
        budget = Budget(0.01, seconds_per_px=1e-6)
        parts = list(iter_predict(model_of(module), image, None, budget))
        assert max(area(part.region) for part in parts) <= 10_000
        assert budget.seconds_per_px == pytest.approx(1e-6, rel=0.01)
        assert area(parts[0].region) == area(parts[-1].region)


def area(region: Region) -> int:
    return (region[2] - region[0]) * (region[3] - region[1])


def out_of_memory_above(limit: int, error: Exception) -> Callable[[Tensor], Tensor]:
    def scores(x: Tensor) -> Tensor:
        if x.shape[-2] * x.shape[-1] > limit:
            raise error
        return x

    return scores


def torch_without_memory() -> Exception:
    """Give the error of torch when the memory of the machine does not suffice."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


class TestMemory:
    @pytest.mark.parametrize(
        "error",
        [torch.OutOfMemoryError("CUDA"), MemoryError(), torch_without_memory()],
        ids=["device", "python", "machine"],
    )
    def test_too_little_leads_to_smaller_tiles_and_the_same_labels(
        self, error: Exception
    ) -> None:
        image = random_image(200, 200, 3)
        expected, _ = predict_image(model_of(Fake()), image)
        short = Fake(out_of_memory_above(70**2, error), halo=3)
        parts = list(iter_predict(model_of(short), image, PredictOptions(tile=200)))
        labels = np.zeros_like(expected)
        for part in parts:
            y0, x0, y1, x1 = part.region
            assert (y1 - y0) * (x1 - x0) <= 70**2
            labels[y0:y1, x0:x1] = part.labels
        np.testing.assert_array_equal(labels, expected)
        # Not smaller than needed, nor tried in vain for tiles as large as one before.
        assert {part.labels.size for part in parts} == {50**2}
        failed = [field for field in short.fields if math.prod(field) > 70**2]
        assert failed == [(200, 200), (103, 103)]
        assert parts[-1].share == 1

    @pytest.mark.parametrize("scale", [0.5, 1.0, 40.0])
    def test_too_little_for_the_smallest_tile_is_an_error(self, scale: float) -> None:
        tries = itertools.count()

        def scores(_: Tensor) -> Tensor:
            assert next(tries) < 20, "tried again and again"
            raise torch.OutOfMemoryError("CUDA out of memory")

        module = Fake(scores)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            predict_image(model_of(module, scale=scale), random_image(100, 100, 3))
        # A pixel of the image is never cut; interpolation adds a working pixel a side.
        smallest = max(predictor.SMALLEST_TILE, scale)
        assert max(module.fields[-1]) <= smallest + 2

    def test_another_error_of_the_network_is_not_hidden(self) -> None:
        error = RuntimeError("the shapes do not fit")
        module = Fake(out_of_memory_above(0, error))
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            predict_image(model_of(module), random_image(100, 100, 3))
        assert len(module.fields) == 1


def slow_module(seconds_per_px: float) -> tuple[Fake, SimpleNamespace]:
    """Give a network and the clock on which it takes so long a pixel."""
    now = 0.0

    def scores(x: Tensor) -> Tensor:
        nonlocal now
        now += seconds_per_px * x.shape[-2] * x.shape[-1]
        return x

    return Fake(scores), SimpleNamespace(perf_counter=lambda: now)


class TestQuantum:
    @pytest.mark.parametrize("quantum_s", [0.05, 0.005, 0.002])
    def test_tiles_are_cut_until_one_takes_less(
        self, monkeypatch: pytest.MonkeyPatch, quantum_s: float
    ) -> None:
        module, clock = slow_module(1e-6)
        monkeypatch.setattr(predictor, "time", clock)
        options = PredictOptions(tile=256, quantum_s=quantum_s)
        image = random_image(512, 512, 3)
        labels = np.zeros((512, 512), np.uint8)
        for part in iter_predict(model_of(module), image, options):
            y0, x0, y1, x1 = part.region
            labels[y0:y1, x0:x1] = part.labels
        first, *others = (height * width * 1e-6 for height, width in module.fields)
        assert first == pytest.approx(256**2 * 1e-6)
        # No smaller than needed: tiles twice as large would take longer.
        assert all(quantum_s / 4 < seconds <= quantum_s for seconds in others)
        expected, _ = predict_image(model_of(Fake()), image)
        np.testing.assert_array_equal(labels, expected)

    def test_tiles_are_never_cut_smaller_than_the_smallest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, clock = slow_module(1.0)
        monkeypatch.setattr(predictor, "time", clock)
        options = PredictOptions(tile=64, quantum_s=0.1)
        predict_image(model_of(module), random_image(128, 128, 3), options)
        assert set(module.fields[1:]) == {(32, 32)}

    def test_tiles_whose_parts_would_cost_as_much_stay_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, clock = slow_module(1.0)
        module.reach = 128  # As far as the image is wide: each part sees all of it.
        monkeypatch.setattr(predictor, "time", clock)
        options = PredictOptions(tile=64, quantum_s=0.1)
        predict_image(model_of(module), random_image(128, 128, 3), options)
        assert module.fields == [(128, 128)] * 4

    def test_tiles_of_a_fast_network_stay_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, clock = slow_module(1e-9)
        monkeypatch.setattr(predictor, "time", clock)
        options = PredictOptions(tile=64, quantum_s=0.1)
        predict_image(model_of(module), random_image(128, 128, 3), options)
        assert module.fields == [(64, 64)] * 4


class TestImages:
    @pytest.mark.parametrize(
        ("shape", "in_channels", "given"),
        [((8, 9), 3, 1), ((8, 9, 1), 3, 1), ((8, 9, 4), 3, 4), ((8, 9, 3), 1, 3)],
    )
    def test_with_other_channels_are_refused_with_both_numbers(
        self, shape: tuple[int, ...], in_channels: int, given: int
    ) -> None:
        model = model_of(Fake(), in_channels=in_channels)
        sentence = rf"{given} channel.* with {in_channels};"
        with pytest.raises(ImageError, match=sentence) as error:
            predict_image(model, random_image(*shape))
        assert error.value.values == {"given": given, "expected": in_channels}

    @pytest.mark.parametrize("shape", [(8,), (2, 8, 9, 3), (0, 9, 3), (8, 0, 3)])
    def test_that_are_none_are_refused_with_their_shape(
        self, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ImageError, match=r"expected \(y, x\)") as error:
            next(iter_predict(model_of(Fake()), random_image(*shape)))
        assert error.value.values == {"shape": shape}

    @pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1)])
    def test_of_one_channel_may_lack_the_axis(self, shape: tuple[int, ...]) -> None:
        module = Fake(lambda x: torch.cat([x, 1 - x], dim=1))
        model = model_of(module, values=(4, 5), in_channels=1)
        image = random_image(*shape)
        labels, _ = predict_image(model, image)
        expected = np.where(image.reshape(8, 9) >= 128, 4, 5)
        np.testing.assert_array_equal(labels, expected)

    def test_are_normalised_as_the_model_was_trained(self) -> None:
        seen = []

        def note(x: Tensor) -> Tensor:
            seen.append(x.clone())
            return x.expand(-1, 3, -1, -1)

        model = model_of(
            Fake(note), in_channels=1, normalisation=Normalisation("window", -160, 240)
        )
        predict_image(model, np.array([[-1024, -160, 40, 240, 3000]], np.int16))
        assert seen[0].tolist() == [[[[0, 0, 0.5, 1, 1]]]]


class TestPixelSize:
    @pytest.mark.parametrize(
        ("trained", "given", "factor"),
        [
            (0.5, 0.25, 0.5),
            (0.5, 1.0, 2.0),
            (0.5, 0.505, 1.0),
            (0.5, None, 1.0),
            (None, 0.5, 1.0),
            (None, None, 1.0),
        ],
    )
    def test_images_are_brought_to_the_pixel_size_of_the_training(
        self, trained: float | None, given: float | None, factor: float
    ) -> None:
        model = model_of(Fake(), scale=0.5, um_per_px=trained)
        assert pixel_ratio(model, given) == pytest.approx(factor)
        (part,) = parts_on(model, random_image(9, 9, 3), factor)
        assert part.scale == pytest.approx(0.5 * factor)

    def test_the_network_sees_what_it_would_have_seen(self) -> None:
        seen: list[Tensor] = []

        def note(x: Tensor) -> Tensor:
            seen.append(x.clone())
            return x

        model = model_of(Fake(note), scale=0.5, um_per_px=1.0)
        image = random_image(40, 50, 3)
        finer = image.repeat(2, axis=0).repeat(2, axis=1)
        coarse, _ = predict_image(model, image, PredictOptions(um_per_px=1.0))
        labels, _ = predict_image(model, finer, PredictOptions(um_per_px=0.5))
        assert coarse.shape == (40, 50)
        assert labels.shape == (80, 100)
        assert seen[0].shape == (1, 3, 20, 25)
        torch.testing.assert_close(seen[1], seen[0])

    @pytest.mark.parametrize("um_per_px", [0.0, -0.5, math.nan, math.inf])
    def test_that_is_none_is_refused(self, um_per_px: float) -> None:
        with pytest.raises(OptionError, match=str(um_per_px)) as error:
            PredictOptions(um_per_px=um_per_px)
        np.testing.assert_equal(error.value.values, {"um_per_px": um_per_px})


class TestOptions:
    @pytest.mark.parametrize("tile", [0, -5])
    def test_a_tile_without_pixels_is_refused(self, tile: int) -> None:
        with pytest.raises(OptionError, match=str(tile)) as error:
            PredictOptions(tile=tile)
        assert error.value.values == {"tile": tile}


class TestLabels:
    @pytest.mark.parametrize(
        ("values", "dtype"),
        [((1, 2, 3), np.uint8), ((2, 7, 255), np.uint8), ((2, 7, 300), np.uint16)],
    )
    @pytest.mark.parametrize("tile", [4, 512])
    def test_are_class_values_in_the_order_of_the_channels(
        self, values: tuple[int, ...], dtype: type, tile: int
    ) -> None:
        channel = np.random.default_rng(1).integers(0, 3, (9, 11))
        image = (np.eye(3, dtype=np.uint8)[channel]) * 200
        model = model_of(Fake(), values=reversed(values))
        labels, maps = predict_image(model, image, PredictOptions(tile=tile))
        assert labels.dtype == dtype
        np.testing.assert_array_equal(labels, np.array(values)[channel])
        assert maps is None

    @pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
    def test_probabilities_sum_to_1_and_the_largest_is_the_label(
        self, tissue: NDArray[np.uint8], scale: float
    ) -> None:
        image = tissue[:100, :120]
        model = random_network(image, scale)
        options = PredictOptions(tile=32, probabilities=True)
        labels, maps = predict_image(model, image, options)
        assert maps is not None
        assert maps.dtype == np.float32
        assert maps.shape == (3, 100, 120)
        np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-6)
        np.testing.assert_array_equal(np.array(CLASSES)[maps.argmax(axis=0)], labels)

    def test_probabilities_are_the_softmax_of_the_scores(self) -> None:
        image = random_image(20, 30, 3)
        model = model_of(Fake(lambda x: 7 * x))
        _, maps = predict_image(model, image, PredictOptions(probabilities=True))
        assert maps is not None
        expected = special.softmax(7 * (image.transpose(2, 0, 1) / 255), axis=0)
        np.testing.assert_allclose(maps, expected, rtol=1e-5)

    def test_probabilities_not_labels_are_enlarged(self) -> None:
        # At 1/2 a row of pixels is -1/4, 1/4, 3/4, 5/4 of the way between two.
        image = np.zeros((2, 4, 2), np.uint8)
        image[:, :2, 0], image[:, 2:, 1] = 51, 204
        model = model_of(Fake(), values=(1, 2), in_channels=2, scale=0.5)
        labels, maps = predict_image(model, image, PredictOptions(probabilities=True))
        left, right = special.softmax([[0.2, 0], [0, 0.8]], axis=1)
        share = np.array([0, 0.25, 0.75, 1])
        row = np.outer(left, 1 - share) + np.outer(right, share)
        expected = np.repeat(row[:, None], 2, axis=1)
        assert labels.tolist() == [[1, 2, 2, 2]] * 2
        assert maps is not None
        np.testing.assert_allclose(maps, expected, rtol=1e-5)

    def test_are_those_of_the_network_on_the_whole_image(
        self, tissue: NDArray[np.uint8]
    ) -> None:
        model = random_network(tissue, 1.0)
        labels, _ = predict_image(model, tissue, PredictOptions(tile=100))
        x = torch.from_numpy(tissue / 255).float().permute(2, 0, 1)
        with torch.inference_mode():
            scores = model.parts["network"](x[None])[0]
        assert (labels == scores.argmax(dim=0).numpy() + 1).mean() >= 0.9999

    def test_leave_the_model_and_the_image_as_they_are(
        self, tissue: NDArray[np.uint8]
    ) -> None:
        model = random_network(tissue, 0.5)
        weights = model.parts["network"].state_dict()
        before = {name: tensor.clone() for name, tensor in weights.items()}
        image = tissue.copy()
        predict_image(model, image, PredictOptions(tile=64))
        np.testing.assert_array_equal(image, tissue)
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
