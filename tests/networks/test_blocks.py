"""Building blocks of the U-Net, against plain convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.errors import OptionError
from napari_sparseseg.networks.blocks import (
    ConcatBlock,
    Norm,
    UpBlock,
    convolution,
    norm_layer,
)

NORMS: tuple[Norm, ...] = ("none", "batch", "group")


def convolutions_of(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def bias_of(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def relu_of_convolution(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Zero-padded 3x3 convolution and ReLU, written out as a sum of shifts."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    total = torch.zeros(len(x), layer.out_channels, height, width)
    for dy in range(3):
        for dx in range(3):
            shifted = padded[..., dy : dy + height, dx : dx + width]
            weight = layer.weight[:, :, dy, dx]
            total = total + torch.einsum("bchw,fc->bfhw", shifted, weight)
    return (total + bias_of(layer)[:, None, None]).clamp_min(0)


class TestNormLayer:
    def test_none_changes_nothing(self) -> None:
        x = torch.randn(2, 8, 3, 3)
        torch.testing.assert_close(norm_layer("none", 8)(x), x, rtol=0, atol=0)

    def test_batch_normalises_each_channel_over_the_batch(self) -> None:
        x = 5 + 3 * torch.randn(4, 8, 9, 9)
        normalised = norm_layer("batch", 8)(x)
        mean, deviation = normalised.mean((0, 2, 3)), normalised.std((0, 2, 3))
        torch.testing.assert_close(mean, torch.zeros(8), rtol=0, atol=1e-5)
        torch.testing.assert_close(deviation, torch.ones(8), rtol=0, atol=0.01)

    @pytest.mark.parametrize(
        ("channels", "groups"), [(2, 1), (8, 1), (20, 2), (28, 1), (64, 8), (11, 1)]
    )
    def test_group_normalises_groups_of_8_channels_or_a_few_more(
        self, channels: int, groups: int
    ) -> None:
        x = 5 + 3 * torch.randn(2, channels, 16, 16)
        in_groups = norm_layer("group", channels)(x).reshape(2, groups, -1)
        zeros = torch.zeros(2, groups)
        torch.testing.assert_close(in_groups.mean(-1), zeros, rtol=0, atol=1e-5)
        torch.testing.assert_close(in_groups.std(-1), zeros + 1, rtol=0, atol=0.01)

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(OptionError, match=r"'layer'.*none, batch, group") as error:
            norm_layer("layer", 8)  # type: ignore[arg-type]
        assert error.value.values == {"norm": "layer"}


class TestConvolution:
    def test_pads_with_zeros_and_keeps_height_and_width(self) -> None:
        module = convolution(1, 1, "none")
        nn.init.ones_(convolutions_of(module)[0].weight)
        nn.init.zeros_(bias_of(convolutions_of(module)[0]))
        counted = module(torch.ones(1, 1, 3, 4))[0, 0]
        assert counted.tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]

    def test_ends_with_a_relu(self) -> None:
        module = convolution(1, 1, "none", kernel_size=1)
        nn.init.constant_(convolutions_of(module)[0].weight, 2.0)
        nn.init.constant_(bias_of(convolutions_of(module)[0]), 1.0)
        x = torch.tensor([[[[-2.0, -0.5, 3.0]]]])
        assert module(x).tolist() == [[[[0.0, 0.0, 7.0]]]]

    @pytest.mark.parametrize("norm", NORMS)
    def test_has_a_bias_only_where_no_normalisation_brings_one(
        self, norm: Norm
    ) -> None:
        (layer,) = convolutions_of(convolution(3, 8, norm))
        assert (layer.bias is not None) == (norm == "none")


class TestConcatBlock:
    def test_puts_its_last_feature_map_behind_its_input(self) -> None:
        block = ConcatBlock(3, 5, "none")
        x = torch.randn(2, 3, 6, 7)
        before = x.clone()
        first, second = convolutions_of(block)
        features = relu_of_convolution(relu_of_convolution(x, first), second)
        result = block(x)
        assert result.shape == (2, 8, 6, 7)
        assert block.out_channels == 8
        torch.testing.assert_close(result[:, :3], before, rtol=0, atol=0)
        torch.testing.assert_close(result[:, 3:], features)


class TestUpBlock:
    def test_repeats_each_pixel_twice_and_convolves(self) -> None:
        block = UpBlock(3, 5, "none")
        x = torch.randn(2, 3, 4, 3)
        (layer,) = convolutions_of(block)
        repeated = torch.kron(x, torch.ones(1, 1, 2, 2))
        result = block(x)
        assert result.shape == (2, 5, 8, 6)
        torch.testing.assert_close(result, relu_of_convolution(repeated, layer))
