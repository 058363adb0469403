"""Group normalisation: fixed statistics make tiles of one image agree."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_sparseseg.networks.group_norm import GroupNorm
from napari_sparseseg.networks.image_statistics import (
    MEASURED_WHOLE,
    MOST_WINDOWS,
    WINDOW,
    fixed,
    measure,
    measure_image,
    windows_of,
)
from napari_sparseseg.networks.scoring import ScoringNetwork
from napari_sparseseg.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Iterator


class OneNorm(ScoringNetwork):
    """Nothing but one normalisation, with a gain and an offset for each channel."""

    stride = 1
    halo = 0

    def __init__(self) -> None:
        super().__init__()
        self.norm = GroupNorm(2, 4)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x)
        return normalised


@pytest.fixture
def network() -> OneNorm:
    torch.manual_seed(0)
    return OneNorm().eval()


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 2, filters=8, levels=3, norm="group").eval()


def grouped(x: Tensor) -> Tensor:
    """Give (B, 4, H, W) as (2, n): all numbers of each of two groups."""
    groups: Tensor = x.unflatten(1, (2, 2)).transpose(0, 1).flatten(1)
    return groups


def test_it_is_torchs_own_as_long_as_nothing_is_fixed(network: OneNorm) -> None:
    x = 3 + 2 * torch.randn(2, 4, 5, 6)
    own = nn.GroupNorm(2, 4)
    own.load_state_dict(network.norm.state_dict())
    torch.testing.assert_close(network(x), own(x), rtol=0, atol=0)


def test_statistics_are_the_mean_and_mean_square_of_each_group(
    network: OneNorm,
) -> None:
    x = 3 + 2 * torch.randn(1, 4, 5, 6)
    ((mean, square),) = measure(network, [x])
    torch.testing.assert_close(mean, grouped(x).mean(dim=1))
    torch.testing.assert_close(square, (grouped(x) ** 2).mean(dim=1))


def test_statistics_of_windows_are_those_of_all_their_pixels(network: OneNorm) -> None:
    windows = [torch.randn(1, 4, 5, 6), 7 + torch.randn(1, 4, 2, 3)]
    ((mean, square),) = measure(network, windows)
    pixels = torch.cat([grouped(window) for window in windows], dim=1)
    torch.testing.assert_close(mean, pixels.mean(dim=1))
    torch.testing.assert_close(square, (pixels**2).mean(dim=1))


def test_fixed_statistics_are_used_for_whatever_comes(network: OneNorm) -> None:
    image, tile = 3 + 2 * torch.randn(1, 4, 9, 9), torch.randn(1, 4, 2, 3)
    with fixed(network, measure(network, [image])):
        result = network(tile)
    pixels = grouped(image)
    mean, variance = pixels.mean(dim=1), pixels.var(dim=1, correction=0)
    centred = tile.unflatten(1, (2, 2)) - mean[:, None, None, None]
    scaled = (centred / (variance + 1e-5).sqrt()[:, None, None, None]).flatten(1, 2)
    gain, offset = (p[:, None, None] for p in (network.norm.weight, network.norm.bias))
    torch.testing.assert_close(result, scaled * gain + offset)


def test_an_images_own_statistics_change_nothing(unet: UNet) -> None:
    image = torch.rand(3, 40, 48)
    plain = unet(image[None])
    with fixed(unet, measure_image(unet, image)):
        torch.testing.assert_close(unet(image[None]), plain, rtol=1e-4, atol=1e-5)


def test_only_with_fixed_statistics_does_the_halo_hold(unet: UNet) -> None:
    image = torch.rand(1, 3, 32, 128)
    changed = image.clone()
    changed[..., 64 + unet.halo + 1 :] = 0
    with torch.inference_mode():
        assert not torch.allclose(unet(image)[..., 64], unet(changed)[..., 64])
        with fixed(unet, measure(unet, [image])):
            column, other = unet(image)[..., 64], unet(changed)[..., 64]
    torch.testing.assert_close(column, other, rtol=0, atol=1e-5)


def test_statistics_are_forgotten_afterwards_even_after_an_error(unet: UNet) -> None:
    image = torch.rand(1, 3, 16, 16)
    plain = unet(image)
    statistics = measure(unet, [torch.rand(1, 3, 16, 16) * 9])
    with pytest.raises(KeyError), fixed(unet, statistics):
        assert not torch.allclose(unet(image), plain)
        raise KeyError
    torch.testing.assert_close(unet(image), plain, rtol=0, atol=0)


def test_a_network_without_such_layers_looks_at_no_window() -> None:
    read: list[Tensor] = []

    def windows() -> Iterator[Tensor]:
        read.append(torch.rand(1, 3, 8, 8))
        yield read[-1]

    plain = UNet(3, 2, filters=2, levels=1, norm="batch")
    assert measure(plain, windows()) == ()
    assert not read
    image = torch.rand(1, 3, 8, 8)
    with fixed(plain, ()):
        assert plain(image).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (262_144, 1)])
def test_small_images_are_measured_whole(shape: tuple[int, int]) -> None:
    assert shape[0] * shape[1] <= MEASURED_WHOLE
    assert windows_of(shape) == [(0, 0, *shape)]


@pytest.mark.parametrize("shape", [(513, 512), (522, 775), (5000, 3000), (300_000, 1)])
def test_of_larger_images_a_few_windows_all_over_are_measured(
    shape: tuple[int, int],
) -> None:
    windows = windows_of(shape)
    assert 2 <= len(set(windows)) == len(windows) <= MOST_WINDOWS
    for y0, x0, y1, x1 in windows:
        assert 0 <= y0 < y1 <= shape[0]
        assert 0 <= x0 < x1 <= shape[1]
        assert max(y1 - y0, x1 - x0) <= WINDOW
    starts = [window[0] for window in windows]
    assert starts[0] == 0
    assert shape[0] - starts[-1] <= WINDOW
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert max(gaps) <= max(2 * WINDOW, shape[0] / 8)
    assert np.all(np.diff(starts) >= 0)


def test_windows_lie_where_most_counts() -> None:
    def share(window: tuple[int, int, int, int]) -> float:
        y0, x0, y1, x1 = window
        rows = max(0, min(y1, 1800) - max(y0, 1000))
        columns = max(0, min(x1, 700) - max(x0, 400))
        return rows * columns / ((y1 - y0) * (x1 - x0))

    windows = windows_of((4000, 4000), share)
    assert len(set(windows)) == MOST_WINDOWS
    assert min(map(share, windows)) >= 0.5
    # Nowhere is anything: then all count alike.
    assert windows_of((4000, 4000), lambda _: 0.0) == windows_of((4000, 4000))
    assert windows_of((300, 300), lambda window: window[0]) == [
        (y, x, min(y + WINDOW, 300), min(x + WINDOW, 300))
        for y in (WINDOW, 2 * WINDOW)
        for x in (0, WINDOW, 2 * WINDOW)
    ]
