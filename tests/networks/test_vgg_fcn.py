"""The networks of Abdulhamid: their layers, how far they see, first weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec, build_network
from napari_sparseseg.networks.vgg_fcn import (
    EXPERIMENT_1,
    EXPERIMENT_2,
    EXPERIMENT_3,
    FINAL,
    Layout,
    VggFcn,
)
from tests.networks.reach import lose_no_path, reach

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = {
    "vgg-fcn-1": EXPERIMENT_1,
    "vgg-fcn-2": EXPERIMENT_2,
    "vgg-fcn-3": EXPERIMENT_3,
    "vgg-fcn": FINAL,
}

#: Kind, side of the kernel, channels in and out, as in figures 2 to 6 of the paper.
BEFORE_2ND_POOLING = [
    ("conv", 3, 3, 64),
    ("conv", 3, 64, 64),
    ("pool",),
    ("conv", 3, 64, 128),
    ("conv", 3, 128, 128),
]
LAYERS = {
    "vgg-fcn-1": [
        *BEFORE_2ND_POOLING,
        ("transposed", 2, 128, 128),
        ("conv", 11, 128, 64),
        ("conv", 9, 64, 48),
        ("conv", 3, 48, 32),
        ("conv", 3, 32, 3),
    ],
    "vgg-fcn-2": [
        *BEFORE_2ND_POOLING,
        ("transposed", 2, 128, 128),
        ("conv", 9, 128, 64),
        ("conv", 7, 64, 48),
        ("conv", 5, 48, 32),
        ("conv", 3, 32, 3),
    ],
    "vgg-fcn-3": [
        *BEFORE_2ND_POOLING,
        ("transposed", 2, 128, 128),
        ("conv", 3, 128, 256),
        ("conv", 3, 256, 256),
        ("conv", 3, 256, 128),
        ("conv", 3, 128, 128),
        ("conv", 3, 128, 64),
        ("conv", 3, 64, 32),
        ("conv", 3, 32, 3),
    ],
    "vgg-fcn": [
        *BEFORE_2ND_POOLING,
        ("pool",),
        ("conv", 3, 128, 256),
        ("conv", 3, 256, 256),
        ("conv", 3, 256, 256),
        ("transposed", 2, 256, 256),
        ("conv", 3, 256, 256),
        ("transposed", 2, 256, 128),
        ("conv", 3, 128, 64),
        ("conv", 3, 64, 32),
        ("conv", 3, 32, 3),
    ],
}


def weightless(layout: Layout, narrowing: int = 1) -> VggFcn:
    with torch.device("meta"):
        return VggFcn(layout, 3, 3, narrowing=narrowing)


def small(layout: Layout = FINAL, dropout: float = 0.0) -> VggFcn:
    torch.manual_seed(0)
    return VggFcn(layout, 3, 3, narrowing=8, dropout=dropout).eval()


def described(layer: nn.Module) -> tuple[str | int, ...] | None:
    if isinstance(layer, nn.MaxPool2d):
        assert (layer.kernel_size, layer.stride) == (2, 2)
        return ("pool",)
    if isinstance(layer, nn.ConvTranspose2d):
        assert (layer.stride, layer.padding) == ((2, 2), (0, 0))
        kind = "transposed"
    elif isinstance(layer, nn.Conv2d):
        assert layer.stride == (1, 1)
        kind = "conv"
    else:
        return None
    assert layer.kernel_size[0] == layer.kernel_size[1]
    return (kind, layer.kernel_size[0], layer.in_channels, layer.out_channels)


@pytest.mark.parametrize("name", LAYERS)
class TestLayers:
    def test_are_those_of_the_paper_in_the_order_of_data(self, name: str) -> None:
        network = weightless(LAYOUTS[name])
        seen: list[tuple[str | int, ...]] = []
        rectified: list[nn.Module] = []

        def note(layer: nn.Module, _: tuple[Tensor], __: Tensor) -> None:
            words = described(layer)
            if words is not None:
                seen.append(words)
            if isinstance(layer, nn.ReLU):
                rectified.append(layer)

        for layer in network.modules():
            layer.register_forward_hook(note)
        scores = network(torch.empty(1, 3, 720, 1128, device="meta"))
        assert seen == LAYERS[name]
        assert scores.shape == (1, 3, 720, 1128)
        # Each convolution but the last is followed by one.
        assert len(rectified) == sum(len(words) > 1 for words in seen) - 1

    def test_leave_the_encoder_where_the_paper_does(self, name: str) -> None:
        network = weightless(LAYOUTS[name])
        (features,) = network.encode(torch.empty(1, 3, 720, 1128, device="meta"))
        final = name == "vgg-fcn"
        assert features.shape[1:] == ((256, 180, 282) if final else (128, 360, 564))
        assert network.stride == (4 if final else 2)

    def test_have_a_quarter_of_the_filters_on_a_cpu(self, name: str) -> None:
        paper, light = (
            build_network(PRESETS[name][preset], 3, 3).network.decoder  # type: ignore[index]
            for preset in ("paper", "light")
        )
        for wide, narrow in zip(paper, light, strict=True):  # type: ignore[arg-type]
            if not isinstance(wide, nn.ReLU):
                assert wide.out_channels == 4 * narrow.out_channels
                assert wide.kernel_size == narrow.kernel_size

    def test_reach_as_far_as_the_halo_says(self, name: str) -> None:
        network = small(LAYOUTS[name])
        halo, stride = network.halo, network.stride
        lose_no_path(network)
        network.double()
        reaches = [reach(network, at, at, 96) for at in range(48, 48 + stride)]
        assert max(reaches) == halo


class TestForward:
    def test_agrees_with_torchvisions_vgg16_and_the_layers_written_out(self) -> None:
        from torchvision.models import vgg16

        ours = small()
        with torch.device("meta"):
            features = vgg16().features[:14]
        features.load_state_dict(ours.encoder.state_dict(), assign=True)
        x = torch.rand(1, 3, 24, 36)
        with torch.inference_mode():
            y = features(x)
            for layer in ours.decoder:
                if isinstance(layer, nn.ConvTranspose2d):
                    y = F.conv_transpose2d(y, layer.weight, layer.bias, stride=2)
                elif isinstance(layer, nn.Conv2d):
                    y = F.conv2d(y, layer.weight, layer.bias, padding="same")
                else:
                    y = y.relu()
            last = ours.classifier
            expected = F.conv2d(y, last.weight, last.bias, padding="same")
            torch.testing.assert_close(ours(x), expected)
        assert expected.std() > 0.01

    def test_odd_sizes_are_those_of_the_reflected_image_cropped(self) -> None:
        network = small()
        x = torch.rand(1, 3, 9, 14)
        grown = F.pad(x, (0, 2, 0, 3), mode="reflect")
        with torch.inference_mode():
            torch.testing.assert_close(network(x), network(grown)[..., :9, :14])

    def test_dropout_leaves_out_features_of_the_last_layer_while_learning(self) -> None:
        network = small(dropout=0.5)
        plain = small()
        plain.load_state_dict(network.state_dict())
        x = torch.rand(1, 3, 16, 16)
        with torch.inference_mode():
            torch.testing.assert_close(network(x), plain(x))
            kept = network.decoder(network.encode(x)[0])
            torch.manual_seed(1)
            learning = network.train()(x)
            torch.manual_seed(1)
            expected = network.classifier(F.dropout(kept, 0.5))
        torch.testing.assert_close(learning, expected)


class TestFirstWeights:
    def test_come_from_a_file_that_may_hold_more_layers(self, tmp_path: Path) -> None:
        from napari_sparseseg.networks.encoders import build_encoder

        torch.manual_seed(5)
        longer = build_encoder("vgg16", levels=("conv3_3",)).state_dict()
        weights = {f"features.{key}": value for key, value in longer.items()}
        weights["classifier.6.bias"] = torch.zeros(1000)
        save_file(weights, tmp_path / "w.safetensors")
        network = small()
        network.load_encoder(tmp_path / "w.safetensors")
        found = network.encoder.state_dict()
        assert len(found) == 12
        for name, value in found.items():
            assert torch.equal(value, longer[name])

    @pytest.mark.parametrize("name", LAYERS)
    def test_have_the_deviation_of_he_by_what_an_output_pixel_sees(
        self, name: str
    ) -> None:
        torch.manual_seed(0)
        network = VggFcn(LAYOUTS[name], 3, 3)
        for layer in network.modules():
            words = described(layer)
            if words is None or words == ("pool",):
                continue
            kind, side, channels, _ = words
            # Kernel and stride of a transposed one are equal: one weight a channel.
            seen = int(channels) * (1 if kind == "transposed" else int(side) ** 2)
            weight, bias = layer.state_dict().values()
            expected = math.sqrt(2 / seen)
            # Four deviations of the estimate.
            error = 4 * expected / math.sqrt(2 * weight.numel())
            assert float(weight.std()) == pytest.approx(expected, abs=error)
            assert not bias.any()

    def test_keep_the_size_of_activations(self) -> None:
        torch.manual_seed(0)
        network = VggFcn(FINAL, 3, 3)
        with torch.inference_mode():
            scores = network(torch.randn(1, 3, 32, 32))
        assert 0.1 < float(scores.std()) < 10


@pytest.mark.parametrize("narrowing", [0, 33, 1.5, "half"])
def test_filters_that_cannot_be_are_refused(narrowing: object) -> None:
    with pytest.raises(OptionError, match="narrowing"):
        build_network(NetworkSpec("vgg-fcn", {"narrowing": narrowing}), 3, 2)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(OptionError, match=f"the dropout is {dropout}; expected"):
        small(dropout=dropout)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ImageError, match="has 2 channels, but this network takes"):
        VggFcn(FINAL, 2, 3)
