"""The U-Net of Bokhorst 2018: widths, first weights, how far it sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.networks.group_norm import GroupNorm
from napari_sparseseg.networks.registry import PRESETS
from napari_sparseseg.networks.scoring import pad_to_multiple
from napari_sparseseg.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sparseseg.networks.blocks import Norm
    from napari_sparseseg.networks.network_names import Preset

PRESET_NAMES: tuple[Preset, ...] = ("paper", "light")
ODD_SIZES = ((1, 1), (7, 13), (33, 50), (2, 40))


def preset(name: Preset, in_channels: int = 3, n_classes: int = 4) -> UNet:
    torch.manual_seed(0)
    return UNet(in_channels, n_classes, **PRESETS["unet"][name].options).eval()


def convolutions_of(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def channels_seen(network: UNet) -> dict[str, list[int]]:
    """Give the channels that go into and come out of each kind of part, in order."""
    seen: dict[str, list[int]] = {}
    kinds: dict[str, Iterable[nn.Module]] = {
        "encoder": network.encoder,
        "up": network.ups,
        "decoder": network.decoder,
        "pool": [network.pool],
        "classifier": [network.classifier],
    }

    def watch(kind: str, part: nn.Module) -> None:
        def note(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            seen.setdefault(f"{kind} in", []).append(given[0].shape[1])
            seen.setdefault(f"{kind} out", []).append(result.shape[1])

        part.register_forward_hook(note)

    for kind, parts in kinds.items():
        for part in parts:
            watch(kind, part)
    with torch.inference_mode():
        network(torch.rand(1, 3, 16, 16))
    return seen


class TestShapes:
    @pytest.mark.parametrize("name", PRESET_NAMES)
    @pytest.mark.parametrize("in_channels", [1, 3, 5])
    def test_gives_a_score_map_a_class_for_any_size(
        self, name: Preset, in_channels: int
    ) -> None:
        network = preset(name, in_channels, n_classes=4)
        for height, width in ODD_SIZES:
            with torch.inference_mode():
                scores = network(torch.rand(2, in_channels, height, width))
            assert scores.shape == (2, 4, height, width)
            assert scores.isfinite().all()

    def test_paper_is_as_wide_as_worked_by_hand(self) -> None:
        # A block adds its filters to what it is given: 3 + 32 = 35, 35 + 64 = 99, ...
        # Up-sampling brings them down to the filters of the level above, to which that
        # level's whole output is put: 256 + 483 = 739, and the block adds 256 = 995.
        assert channels_seen(preset("paper")) == {
            "encoder in": [3, 35, 99, 227, 483],
            "encoder out": [35, 99, 227, 483, 995],
            "pool in": [35, 99, 227, 483],
            "pool out": [35, 99, 227, 483],
            "up in": [995, 995, 483, 227],
            "up out": [256, 128, 64, 32],
            "decoder in": [256 + 483, 128 + 227, 64 + 99, 32 + 35],
            "decoder out": [995, 483, 227, 99],
            "classifier in": [99],
            "classifier out": [4],
        }

    def test_light_is_as_wide_as_worked_by_hand(self) -> None:
        assert channels_seen(preset("light")) == {
            "encoder in": [3, 19, 51, 115],
            "encoder out": [19, 51, 115, 243],
            "pool in": [19, 51, 115],
            "pool out": [19, 51, 115],
            "up in": [243, 243, 115],
            "up out": [64, 32, 16],
            "decoder in": [64 + 115, 32 + 51, 16 + 19],
            "decoder out": [243, 115, 51],
            "classifier in": [51],
            "classifier out": [4],
        }

    @pytest.mark.parametrize(
        ("norm", "kind"),
        [("none", None), ("batch", nn.BatchNorm2d), ("group", GroupNorm)],
    )
    def test_every_3x3_convolution_is_normalised_as_asked(
        self, norm: Norm, kind: type | None
    ) -> None:
        network = UNet(3, 2, filters=8, levels=2, norm=norm)
        layers = list(network.modules())
        found = [
            layer for layer in layers if isinstance(layer, nn.BatchNorm2d | GroupNorm)
        ]
        # Two blocks down, one up-sampling and one block up: 2 + 2 + 1 + 2.
        assert len(found) == (0 if kind is None else 7)
        assert all(kind is not None and isinstance(layer, kind) for layer in found)

    def test_one_level_is_a_block_and_a_classifier(self) -> None:
        network = UNet(3, 2, filters=4, levels=1)
        x = torch.rand(1, 3, 5, 7)
        expected = network.classifier(network.encoder[0](x))
        torch.testing.assert_close(network(x), expected)
        assert network.stride == 1


class TestForward:
    def test_agrees_with_two_levels_written_out(self) -> None:
        network = UNet(2, 3, filters=4, levels=2)
        for layer in convolutions_of(network):
            assert layer.bias is not None
            nn.init.normal_(layer.bias)
        down_0, down_1, up, block, last = (
            convolutions_of(part)
            for part in (
                network.encoder[0],
                network.encoder[1],
                network.ups[0],
                network.decoder[0],
                network.classifier,
            )
        )

        def convolve(x: Tensor, layers: list[nn.Conv2d]) -> Tensor:
            for layer in layers:
                x = F.conv2d(x, layer.weight, layer.bias, padding=1).relu()
            return x

        x = torch.rand(1, 2, 6, 4)
        top = torch.cat([x, convolve(x, down_0)], dim=1)
        pooled = top.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
        deep = torch.cat([pooled, convolve(pooled, down_1)], dim=1)
        raised = convolve(torch.kron(deep, torch.ones(1, 1, 2, 2)), up)
        joined = torch.cat([raised, top], dim=1)
        features = torch.cat([joined, convolve(joined, block)], dim=1)
        expected = F.conv2d(features, last[0].weight, last[0].bias)
        torch.testing.assert_close(network(x), expected)

    @pytest.mark.parametrize("size", [(7, 13), (1, 1), (3, 50)])
    def test_odd_sizes_are_those_of_the_grown_image_cropped(
        self, size: tuple[int, int]
    ) -> None:
        network = UNet(3, 2, filters=2, levels=4).eval()
        x = torch.rand(1, 3, *size)
        grown = pad_to_multiple(x, 8)
        expected = network(grown)[..., : size[0], : size[1]]
        torch.testing.assert_close(network(x), expected)

    @pytest.mark.parametrize("name", PRESET_NAMES)
    def test_gradient_reaches_every_weight(self, name: Preset) -> None:
        network = preset(name).train()
        scores = network(torch.rand(2, 3, 32, 32))
        F.cross_entropy(scores, torch.randint(4, (2, 32, 32))).backward()
        for path, weights in network.named_parameters():
            assert weights.requires_grad, path
            assert weights.grad is not None, path
            assert weights.grad.isfinite().all(), path
            assert weights.grad.abs().max() > 0, path


class TestPadding:
    def test_reflects_without_repeating_the_edge(self) -> None:
        x = torch.arange(5.0).expand(1, 1, 3, 5)
        padded = pad_to_multiple(x, 4)
        assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
        rows = torch.arange(5.0)[:, None].expand(1, 1, 5, 4)
        assert pad_to_multiple(rows, 4)[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]

    def test_repeats_the_edge_where_there_is_too_little_to_reflect(self) -> None:
        x = torch.arange(3.0).expand(1, 1, 8, 3)
        assert pad_to_multiple(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]

    def test_leaves_multiples_alone(self) -> None:
        x = torch.rand(1, 2, 8, 16)
        assert pad_to_multiple(x, 8) is x


class TestFirstWeights:
    @pytest.mark.parametrize("norm", ["none", "batch", "group"])
    def test_are_he_normal_by_fan_in_and_biases_are_0(self, norm: Norm) -> None:
        torch.manual_seed(0)
        network = UNet(3, 4, filters=16, levels=3, norm=norm)
        for layer in convolutions_of(network):
            weights = layer.weight.detach()
            fan_in = weights[0].numel()
            deviation = math.sqrt(2 / fan_in)
            # Five standard errors of the mean and of the deviation of a normal sample.
            error = 5 * deviation / math.sqrt(weights.numel())
            assert abs(float(weights.mean())) < error
            assert float(weights.std()) == pytest.approx(deviation, abs=error)
            assert float(weights.abs().max()) > 2 * deviation
            assert layer.bias is None or not layer.bias.any()

    def test_keep_the_size_of_activations_through_the_levels(self) -> None:
        # Batch normalisation aside, which would hide it.
        torch.manual_seed(0)
        network = UNet(3, 2, filters=32, levels=4)
        with torch.inference_mode():
            scores = network(torch.randn(1, 3, 64, 64))
        assert 0.3 < float(scores.std()) < 10


def reach(network: UNet, at: int, length: int) -> int:
    """Measure how far along x the output at *at* depends on the input.

    Pooling passes the gradient to the largest of four pixels alone, so it is made to
    average, and the weights positive: then no path from input to output is lost.
    """
    network.pool = nn.AvgPool2d(2)  # type: ignore[assignment]
    for layer in convolutions_of(network):
        nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    x = torch.ones(1, 1, network.stride, length).double().requires_grad_()
    network.double()(x)[..., at].sum().backward()
    assert x.grad is not None
    (columns,) = x.grad.abs().sum((0, 1, 2)).nonzero(as_tuple=True)
    assert columns[0] > 0
    assert columns[-1] < length - 1
    return int((columns - at).abs().max())


class TestHalo:
    @pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
    def test_is_the_reach_and_no_more_than_a_stride_longer(self, levels: int) -> None:
        network = UNet(1, 2, filters=1, levels=levels)
        middle = 10 * network.stride
        reaches = [
            reach(network, middle + shift, 2 * middle)
            for shift in range(network.stride)
        ]
        assert max(reaches) <= network.halo <= max(reaches) + network.stride

    def test_worked_by_hand(self) -> None:
        # light: 3x3 convolutions at strides 1, 2, 4, 8 reach as many pixels: two a
        # block of the encoder, 2 (1 + 2 + 4 + 8) = 30; three a level of the decoder,
        # 3 (1 + 2 + 4) = 21; and the 8 of a stride. paper: 62 + 45 + 16.
        assert (preset("light").halo, preset("light").stride) == (59, 8)
        assert (preset("paper").halo, preset("paper").stride) == (123, 16)

    @pytest.mark.parametrize("norm", ["none", "batch"])
    def test_beyond_it_the_gradient_is_zero(self, norm: Norm) -> None:
        torch.manual_seed(0)
        network = UNet(2, 3, filters=4, levels=3, norm=norm).eval()
        halo, side = network.halo, 96
        for y, x in ((48, 48), (50, 45), (51, 51)):
            image = torch.rand(1, 2, side, side, requires_grad=True)
            network(image)[0, :, y, x].sum().backward()
            assert image.grad is not None
            seen = image.grad.abs().sum((0, 1))
            assert seen[y, x] > 0
            inside = (slice(y - halo, y + halo + 1), slice(x - halo, x + halo + 1))
            assert seen[inside].count_nonzero() > halo**2
            seen[inside] = 0
            assert not seen.any()
