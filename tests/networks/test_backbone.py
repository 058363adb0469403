"""The backbone: sizes and strides, ImageNet's standardisation, its pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.networks.backbone import ResNetPyramid

if TYPE_CHECKING:
    from napari_sparseseg.networks.network_names import BackboneName

NAMES: tuple[BackboneName, ...] = ("resnet18", "resnet50")


def pyramid(name: BackboneName = "resnet18", channels: int = 8) -> ResNetPyramid:
    torch.manual_seed(0)
    return ResNetPyramid(name, channels).eval()


@pytest.fixture(scope="module")
def light() -> ResNetPyramid:
    return pyramid()


@pytest.mark.parametrize("name", NAMES)
def test_levels_have_strides_of_4_to_32_pixels(name: BackboneName) -> None:
    with torch.inference_mode():
        levels = pyramid(name)(torch.rand(2, 3, 100, 70))
    sizes = [tuple(level.shape) for level in levels]
    assert sizes == [(2, 8, 25, 18), (2, 8, 13, 9), (2, 8, 7, 5), (2, 8, 4, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_torchvisions_network_on_standardised_images(name: BackboneName) -> None:
    from torchvision.models import get_model
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
    from torchvision.transforms.functional import normalize

    ours = pyramid(name)
    torch.manual_seed(0)
    resnet = get_model(name, weights=None)
    widths = [resnet.fc.in_features // share for share in (8, 4, 2, 1)]
    returned = {f"layer{stage}": str(stage) for stage in (1, 2, 3, 4)}
    theirs = BackboneWithFPN(resnet, returned, widths, 8, LastLevelMaxPool()).eval()
    images = torch.rand(1, 3, 64, 96)
    standard = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = list(theirs(standard).values())[:4]
        for level, same in zip(ours(images), expected, strict=True):
            torch.testing.assert_close(level, same)


def test_one_channel_counts_as_three_equal_ones(light: ResNetPyramid) -> None:
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(light(image), light(image.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("n_channels", [2, 4])
def test_other_numbers_of_channels_are_refused(
    light: ResNetPyramid, n_channels: int
) -> None:
    with pytest.raises(ImageError, match=f"has {n_channels} channels, but this"):
        light(torch.rand(1, n_channels, 64, 64))


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(
        OptionError, match="'vgg16'; expected one of resnet18, resnet50"
    ):
        ResNetPyramid("vgg16")  # type: ignore[arg-type]
