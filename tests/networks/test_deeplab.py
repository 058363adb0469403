"""DeepLabV3: torchvision's network, how far it sees, and batches of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.networks import image_statistics
from napari_sparseseg.networks.batch_norm import LenientBatchNorm
from napari_sparseseg.networks.deeplab import DeepLabV3
from napari_sparseseg.networks.image_statistics import fixed, measure, measure_image
from napari_sparseseg.networks.model import ModelInfo, SegmentationModel
from napari_sparseseg.networks.registry import PRESETS, build_network
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.networks.network_names import BackboneName

#: Names of torchvision's layers, and of the same layers here.
NAMES = {
    "backbone.": "encoder.",
    "classifier.0.convs.4.1.": "pyramid.convs.4.convolution.",
    "classifier.0.convs.4.2.": "pyramid.convs.4.norm.",
    "classifier.0.": "pyramid.",
    "classifier.1.": "head.0.",
    "classifier.2.": "head.1.",
    "classifier.4.": "classifier.",
}


def deeplab() -> DeepLabV3:
    torch.manual_seed(0)
    return DeepLabV3(3, 3, backbone="resnet18").eval()


def unweighted(backbone: BackboneName) -> DeepLabV3:
    """Return a network at once, without numbers in its weights."""
    with torch.device("meta"):
        return DeepLabV3(3, 3, backbone=backbone)


@pytest.fixture(scope="module")
def shared() -> DeepLabV3:
    """Return a network that no test changes."""
    return deeplab()


def settle(network: nn.Module, x: Tensor) -> None:
    """Let running statistics be those of *x*, so that scores keep a size."""
    layers = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    network.eval()


def ours_of(name: str) -> str:
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


@pytest.fixture(scope="module")
def pair() -> tuple[DeepLabV3, nn.Module]:
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(1)
    theirs: nn.Module = deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=3, aux_loss=False
    )
    settle(theirs, torch.rand(2, 3, 64, 64))
    ours = unweighted("resnet50")
    weights = {ours_of(k): v.clone() for k, v in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    return ours, theirs


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """Return an image that is longer than the network sees."""
    blobs = np.random.default_rng(0).integers(0, 256, (1, 150, 3))
    return np.kron(blobs, np.ones((8, 8, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def model(image: NDArray[np.uint8]) -> SegmentationModel:
    spec = PRESETS["deeplabv3"]["light"]
    torch.manual_seed(0)
    network = build_network(spec, 3, 3)
    pixels = torch.from_numpy(image / 255).float().permute(2, 0, 1)
    settle(network, torch.stack([pixels[..., :600], pixels[..., 600:]]))
    info = ModelInfo(
        classes=ClassTable.from_values([1, 2, 3]),
        in_channels=3,
        normalisation=Normalisation("range", 0, 255),
        scales={"network": 1.0},
        shown="network",
        network=spec,
    )
    return SegmentationModel(info, {"network": network})


class TestAgainstTorchvision:
    def test_it_gives_the_same_scores(self, pair: tuple[DeepLabV3, nn.Module]) -> None:
        ours, theirs = pair
        x = torch.rand(2, 3, 64, 96)
        with torch.inference_mode():
            expected = theirs.eval()(x)["out"]
            found = ours.eval()(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected)

    def test_it_learns_alike(self, pair: tuple[DeepLabV3, nn.Module]) -> None:
        ours, theirs = pair
        x = torch.rand(2, 3, 32, 32)
        torch.manual_seed(5)  # of the dropout
        expected = theirs.train()(x)["out"]
        torch.manual_seed(5)
        found = ours.train()(x)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


class TestResNet18:
    def test_dilated_stages_hold_what_strided_ones_give(
        self, shared: DeepLabV3
    ) -> None:
        # Every fourth pixel of the features is that of the ResNet as it was.
        plain = resnet18()
        plain.load_state_dict(shared.encoder.state_dict(), strict=False)
        plain.fc = plain.avgpool = nn.Identity()
        x = torch.rand(1, 3, 96, 160)
        with torch.inference_mode():
            (features,) = shared.encode(x)
            strided = plain.eval()(x)
        assert features.shape == (1, 512, 12, 20)
        sparse = features[..., ::4, ::4].flatten(1)
        torch.testing.assert_close(sparse, strided, atol=1e-4, rtol=1e-4)

    def test_takes_the_weights_of_a_file(self, tmp_path: Path) -> None:
        torch.manual_seed(7)
        weights = resnet18().state_dict()
        save_file(weights, tmp_path / "r.safetensors")
        network = deeplab()
        network.load_encoder(tmp_path / "r.safetensors")
        for name, value in network.encoder.state_dict().items():
            torch.testing.assert_close(value, weights[name])


class TestShapes:
    @pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 50), (2, 40)])
    def test_gives_a_score_map_a_class_for_any_size(
        self, shared: DeepLabV3, size: tuple[int, int]
    ) -> None:
        with torch.inference_mode():
            scores = shared(torch.rand(2, 3, *size))
        assert scores.shape == (2, 3, *size)
        assert scores.isfinite().all()

    def test_one_channel_counts_as_three_equal_ones(self, shared: DeepLabV3) -> None:
        grey = torch.rand(1, 1, 24, 24)
        with torch.inference_mode():
            torch.testing.assert_close(shared(grey), shared(grey.repeat(1, 3, 1, 1)))


class TestBatchOfOne:
    def test_is_learned_from(self) -> None:
        network = deeplab().train()
        pooled = network.pyramid.get_submodule("convs.4.norm")
        before = pooled.state_dict()["running_var"].clone()
        stem = network.encoder.get_submodule("bn1").state_dict()["running_mean"]
        assert not stem.any()
        network(torch.rand(1, 3, 32, 32)).square().mean().backward()
        assert torch.equal(before, pooled.state_dict()["running_var"])
        assert stem.any()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    @pytest.mark.parametrize("side", [1, 8])
    def test_is_learned_from_where_it_is_as_small_as_the_stride(
        self, side: int
    ) -> None:
        network = deeplab().train()
        before = {k: v.clone() for k, v in network.named_parameters()}
        optimiser = torch.optim.SGD(network.parameters(), 0.1)
        network(torch.rand(1, 3, side, side)).square().mean().backward()
        optimiser.step()
        for name, parameter in network.named_parameters():
            assert parameter.isfinite().all(), name
        # The last layers, of a single value, and the first ones move alike.
        for name in ("classifier.weight", "head.0.weight", "encoder.conv1.weight"):
            assert not torch.equal(before[name], network.get_parameter(name)), name

    def test_is_normalised_as_in_a_prediction(self) -> None:
        norm = LenientBatchNorm(4)
        nn.init.normal_(norm.weight)
        assert norm.running_mean is not None
        norm.running_mean.normal_()
        x = torch.randn(1, 4, 1, 1)
        torch.testing.assert_close(norm.train()(x), norm.eval()(x))

    @pytest.mark.parametrize("shape", [(3, 4, 1, 1), (1, 4, 2, 1)])
    def test_more_values_are_normalised_as_ever(self, shape: tuple[int, ...]) -> None:
        x = torch.randn(shape)
        ours, theirs = LenientBatchNorm(4), nn.BatchNorm2d(4)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.running_var, theirs.running_var)


class TestHalo:
    def test_worked_by_hand(self) -> None:
        # Stem 3 + 2. Then 3x3 convolutions, each its dilation times its stride; two a
        # block in ResNet-18: 4 * 4; 4 + 3 * 8; 8 + 3 * 16; 16 + 3 * 32: in all 217. One
        # a block in ResNet-50: 3 * 4; 4 + 3 * 8; 8 + 5 * 16; 16 + 2 * 32: in all 213.
        # The pyramid 36 * 8, the head 8, up-sampling 8; and the 7 beside a pixel that
        # has the same features.
        assert unweighted("resnet18").halo == 217 + 304 + 7
        assert unweighted("resnet50").halo == 213 + 304 + 7

    @pytest.mark.parametrize(
        "backbone", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)]
    )
    def test_is_the_reach_and_no_more_than_a_stride_longer(
        self, backbone: BackboneName
    ) -> None:
        # Positive weights, and a mean for the maximum: no path is lost.
        network = unweighted(backbone).to_empty(device="cpu").eval()
        network.requires_grad_(False)
        halo = network.halo
        network.encoder["maxpool"] = nn.AvgPool2d(3, stride=2, padding=1)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 2 / layer.weight[0].numel())
        nn.init.zeros_(network.classifier.get_parameter("bias"))
        middle = 640
        x = torch.ones(1, 3, 8, 2 * middle, requires_grad=True)
        reaches = []
        with fixed(network, measure(network, [x.detach()])):
            scores = network(x)
        for at in (middle, middle + 3, middle + 4):
            (gradient,) = torch.autograd.grad(
                scores[..., at].sum(), x, retain_graph=True
            )
            (columns,) = gradient.abs().sum((0, 1, 2)).nonzero(as_tuple=True)
            assert columns[0] > 0
            assert columns[-1] < 2 * middle - 1
            reaches.append(int((columns - at).abs().max()))
        assert max(reaches) <= halo <= max(reaches) + network.stride


class TestTiles:
    @pytest.fixture(params=["whole", "in windows"])
    def _measured(
        self, request: Any, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        if request.param == "in windows":
            monkeypatch.setattr(image_statistics, "MEASURED_WHOLE", 1000)
        yield

    @pytest.mark.usefixtures("_measured")
    def test_do_not_matter(
        self, model: SegmentationModel, image: NDArray[np.uint8]
    ) -> None:
        whole, in_tiles = (
            predict_image(model, image, PredictOptions(tile=tile, probabilities=True))
            for tile in (10_000, 300)
        )
        assert whole[1] is not None and in_tiles[1] is not None
        assert whole[1].std(axis=(1, 2)).min() > 0.005
        np.testing.assert_allclose(in_tiles[1], whole[1], atol=1e-4)
        assert (in_tiles[0] == whole[0]).mean() > 0.999

    def test_would_matter_without_the_mean_over_the_image(
        self, model: SegmentationModel, image: NDArray[np.uint8]
    ) -> None:
        network = model.parts["network"]
        pixels = torch.from_numpy(image / 255).float().permute(2, 0, 1)
        with torch.inference_mode():
            statistics = measure_image(network, pixels)
            part = pixels[None, ..., :600]
            alone = network(part)
            with fixed(network, statistics):
                together = network(part)
        assert (alone - together)[..., :60].abs().max() > 1e-3

    def test_statistics_are_the_mean_of_each_feature(self, shared: DeepLabV3) -> None:
        x = torch.rand(1, 3, 40, 48)
        with torch.inference_mode():
            (means,) = measure(shared, [x])
            expected = shared.encode(x)[-1].mean(dim=(0, 2, 3))
        torch.testing.assert_close(means, expected)
