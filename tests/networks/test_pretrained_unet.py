"""The U-Net on VGG16 or a ResNet: its levels, how far it sees, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.networks.pretrained_unet import PretrainedUNet
from napari_sparseseg.networks.registry import NetworkSpec, build_network
from tests.networks.reach import lose_no_path, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sparseseg.networks.published_weights import EncoderName


def unet(encoder: EncoderName = "resnet18", **options: Any) -> PretrainedUNet:
    torch.manual_seed(0)
    small: dict[str, Any] = {"filters": 2, "norm": "none"} | options
    return PretrainedUNet(3, 2, encoder=encoder, **small).eval()


def channels_of(parts: nn.ModuleList) -> list[tuple[int, int]]:
    """Return the channels that go into and come out of each part."""
    layers = [
        [layer for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        for part in parts
    ]
    return [(each[0].in_channels, each[-1].out_channels) for each in layers]


class TestLevels:
    def test_of_vgg16_are_as_wide_as_worked_by_hand(self) -> None:
        with torch.device("meta"):
            network = PretrainedUNet(3, 2, encoder="vgg16", filters=32)
        # 64, 128, 256, 512, 512 channels at strides 1, 2, 4, 8, 16.
        assert channels_of(network.ups) == [(512, 256), (256, 128), (128, 64), (64, 32)]
        assert channels_of(network.blocks) == [
            (256 + 512, 256),
            (128 + 256, 128),
            (64 + 128, 64),
            (32 + 64, 32),
        ]
        assert network.stride == 16

    def test_of_resnet50_end_without_features_of_the_size_of_the_image(self) -> None:
        with torch.device("meta"):
            network = PretrainedUNet(3, 2, encoder="resnet50")
        # 64, 256, 512, 1024, 2048 channels at strides 2, 4, 8, 16, 32.
        ups = [(2048, 256), (256, 128), (128, 64), (64, 32), (32, 16)]
        assert channels_of(network.ups) == ups
        assert channels_of(network.blocks) == [
            (256 + 1024, 256),
            (128 + 512, 128),
            (64 + 256, 64),
            (32 + 64, 32),
            (16, 16),
        ]
        assert network.stride == 32

    def test_agree_with_two_of_vgg16_written_out(self) -> None:
        network = unet("vgg16", levels=2)
        up, *block = (
            layer
            for part in (network.ups, network.blocks)
            for layer in part.modules()
            if isinstance(layer, nn.Conv2d)
        )
        x = torch.rand(1, 3, 6, 10)

        def convolve(y: Tensor, layers: Sequence[nn.Module]) -> Tensor:
            for layer in layers:
                assert isinstance(layer, nn.Conv2d)
                y = F.conv2d(y, layer.weight, layer.bias, padding=1).relu()
            return y

        encoder = network.encoder
        with torch.inference_mode():
            fine = convolve(x, [encoder["0"], encoder["2"]])
            pooled = fine.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
            deep = convolve(pooled, [encoder["5"], encoder["7"]])
            raised = convolve(torch.kron(deep, torch.ones(1, 1, 2, 2)), [up])
            joined = convolve(torch.cat([raised, fine], dim=1), block)
            last = network.classifier
            expected = F.conv2d(joined, last.weight, last.bias)
            torch.testing.assert_close(network(x), expected)


class TestHalo:
    @pytest.mark.parametrize(
        ("encoder", "levels"), [("vgg16", 2), ("vgg16", 4), ("resnet18", 3)]
    )
    def test_is_how_far_it_reaches(self, encoder: EncoderName, levels: int) -> None:
        network = unet(encoder, levels=levels)
        halo, stride = network.halo, network.stride
        lose_no_path(network)
        network.double()
        middle = (halo // stride + 1) * stride
        places = range(middle, middle + stride)
        reaches = [reach(network, at, at, 2 * middle + stride) for at in places]
        assert max(reaches) == halo

    def test_worked_by_hand(self) -> None:
        # Two levels of VGG16: two 3x3 convolutions, 2; up-sampling at half the size,
        # another 1; of the coarser features then 2 * 2 pixels, of a pooled pixel 1,
        # and 2 before pooling: from an even place, to the left 2 + 1 pixels are 1.5
        # features, so 2, or 4 pixels; 4 + 4 + 2.
        assert unet("vgg16", levels=2).halo == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "vgg19"}, "'vgg19'; expected one of resnet18, resnet50, vgg16"),
        ({"encoder": "resnet18", "levels": 1}, "16 filters and 1 levels"),
        ({"encoder": "resnet18", "levels": 6}, "16 filters and 6 levels"),
        ({"encoder": "resnet18", "filters": 0}, "0 filters and 5 levels"),
        ({"encoder": "resnet18", "norm": "layer"}, "normalisation is named 'layer'"),
        ({"encoder": "resnet18", "dropout": 1}, "the dropout is 1"),
        ({}, "missing 1 required keyword-only argument: 'encoder'"),
    ],
)
def test_options_that_make_no_network_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        build_network(NetworkSpec("unet-resnet50", options), 3, 2)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ImageError, match="has 2 channels, but this network takes"):
        PretrainedUNet(2, 2, encoder="resnet18")
