"""Localisation maps: fused as in the paper, and lying where the object is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import Generator, Tensor

from napari_sparseseg.networks.region_classifier import ActivationMaps, RegionNetwork
from napari_sparseseg.pseudo_masks import localization
from napari_sparseseg.pseudo_masks.localization import fit_to_box, fuse, localise
from napari_sparseseg.pseudo_masks.mining import (
    MINING_PRESETS,
    MiningImage,
    RegionMining,
    build_region_network,
)

LIGHT = replace(MINING_PRESETS["light"], pyramid_channels=8, roi_size=7, least_steps=1)


def network(method: str = "acol", n_classes: int = 2) -> RegionNetwork:
    torch.manual_seed(0)
    options = replace(LIGHT, method=method)  # type: ignore[arg-type]
    return build_region_network(n_classes, options)


def image(n_boxes: int = 3) -> MiningImage:
    generator = Generator().manual_seed(0)
    corners = torch.rand(n_boxes, 2, generator=generator) * 60
    sides = torch.rand(n_boxes, 2, generator=generator) * 60 + 4
    return MiningImage(
        torch.rand(1, 128, 128, generator=generator),
        torch.cat([corners, corners + sides], dim=1),
        torch.arange(n_boxes) % 2,
    )


def normalised(values: Tensor) -> Tensor:
    positive = values.clamp_min(0)
    return (positive - positive.min()) / (positive.max() - positive.min())


def test_the_map_is_the_larger_of_both_classifiers_for_the_class_of_the_box() -> None:
    generator = Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 3, 5, 5, generator=generator)
    channels = torch.tensor([0, 1, 1, 0])
    fused = fuse(ActivationMaps(a, b), channels)
    alone = fuse(ActivationMaps(a, None), channels)
    for place, channel in enumerate(channels.tolist()):
        of_a, of_b = normalised(a[place, channel]), normalised(b[place, channel])
        torch.testing.assert_close(alone[place], of_a)
        expected = torch.where(of_a > of_b, of_a, of_b)
        torch.testing.assert_close(fused[place], expected)


def test_where_one_classifier_says_nothing_the_other_decides() -> None:
    says = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    nothing = torch.full((2, 2), -3.0)
    channels = torch.zeros(1, dtype=torch.int64)
    expected = [[[0, 0.25], [0.5, 1]]]
    for a, b in ((says, nothing), (nothing, says)):
        maps = ActivationMaps(a[None, None], b[None, None])
        assert fuse(maps, channels).tolist() == expected
    silent = ActivationMaps(nothing[None, None], nothing[None, None])
    assert not fuse(silent, channels).any()


@pytest.mark.parametrize("method", ["cam", "acol"])
def test_an_image_gets_one_map_a_box(method: str) -> None:
    mining = network(method)
    given = image()
    maps = localise(mining, given)
    assert maps.shape == (3, 7, 7)
    assert maps.dtype == torch.float32
    assert maps.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert maps.amax(dim=(1, 2)).tolist() == [1, 1, 1]
    with torch.no_grad():
        whole = mining(given.pixels[None], [given.boxes], given.channels)
    torch.testing.assert_close(maps, fuse(whole, given.channels))
    for place in range(3):
        alone = MiningImage(
            given.pixels,
            given.boxes[place : place + 1],
            given.channels[place : place + 1],
        )
        torch.testing.assert_close(localise(mining, alone)[0], maps[place])


def test_many_boxes_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    mining = network()
    given = image(7)
    whole = localise(mining, given)
    monkeypatch.setattr(localization, "BOXES_AT_ONCE", 3)
    torch.testing.assert_close(localise(mining, given), whole)


def test_an_image_without_boxes_has_no_map() -> None:
    assert localise(network(), image(0)).shape == (0, 7, 7)


@pytest.mark.parametrize("shape", [(14, 14), (40, 31), (1, 1), (5, 90)])
def test_a_map_is_resampled_bilinearly_to_the_pixels_of_its_box(
    shape: tuple[int, int],
) -> None:
    values = torch.rand(14, 14, generator=Generator().manual_seed(0))
    fitted = fit_to_box(values, *shape)
    expected = resize(  # type: ignore[no-untyped-call]
        values.numpy(), shape, 1, mode="edge", anti_aliasing=False
    )
    np.testing.assert_allclose(fitted.numpy(), expected, atol=1e-5)


def test_the_map_lies_where_the_object_is() -> None:
    """Discs in boxes twice as large, that no label but the boxes tells of."""
    yy, xx = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")

    def draw(seed: int) -> tuple[MiningImage, Tensor]:
        generator = Generator().manual_seed(seed)
        pixels = 0.4 + 0.1 * torch.rand(1, 128, 128, generator=generator)
        x0, y0 = torch.randint(8, 56, (2,), generator=generator).tolist()
        shift_x, shift_y = torch.randint(20, 44, (2,), generator=generator).tolist()
        disc = (xx - x0 - shift_x) ** 2 + (yy - y0 - shift_y) ** 2 < 14**2
        pixels[0, disc] += 0.4
        boxes = torch.tensor([[x0, y0, x0 + 64, y0 + 64]], dtype=torch.float32)
        given = MiningImage(pixels, boxes, torch.tensor([0]))
        return given, disc[y0 : y0 + 64, x0 : x0 + 64]

    drawn = [draw(seed) for seed in range(8)]
    options = replace(LIGHT, batch=4, epochs=8, micro_batch=None, learning_rate=5e-3)
    mining = RegionMining([given for given, _ in drawn], 1, options)
    for _ in mining.run():
        pass
    differences = []
    for given, disc in drawn:
        fitted = fit_to_box(localise(mining.network, given)[0], 64, 64)
        differences.append(float(fitted[disc].mean() - fitted[~disc].mean()))
    assert sum(differences) / len(differences) > 0.2
