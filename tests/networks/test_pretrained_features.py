"""Early layers of encoders as features: torchvision's, wherever the tiles end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model

from napari_sparseseg.inputs.tiling import make_tile
from napari_sparseseg.networks.encoders import IMAGENET_DEVIATION, IMAGENET_MEAN
from napari_sparseseg.networks.pixel_head import HeadNetwork
from napari_sparseseg.networks.pretrained_features import (
    MOST_CHANNELS,
    PretrainedFeatures,
)

if TYPE_CHECKING:
    from torch import Tensor

    from napari_sparseseg.networks.published_weights import EncoderName


def features_of(name: EncoderName) -> PretrainedFeatures:
    torch.manual_seed(0)
    features = PretrainedFeatures(name)
    for layer in features.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as if it had learned
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
    return features


def at_all_pixels(features: PretrainedFeatures, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return features.rows(features.maps(x), 0, height, width)


def standardised(x: Tensor) -> Tensor:
    mean, deviation = (
        torch.tensor(each)[:, None, None]
        for each in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (x - mean) / deviation


def test_vgg16_is_torchvisions_at_three_layers() -> None:
    features = features_of("vgg16")
    torchvisions: Any = get_model("vgg16", weights=None).features.eval()
    torchvisions.load_state_dict(features.encoder.state_dict(), strict=False)
    x = torch.rand(2, 3, 24, 36)
    expected = []
    with torch.inference_mode():
        y = standardised(x)
        for number, layer in enumerate(torchvisions[:16]):
            y = layer(y)
            if number in (3, 8, 15):  # ReLU behind conv1_2, conv2_2, conv3_3
                expected.append(
                    F.interpolate(y, (24, 36), mode="bilinear", align_corners=False)
                )
        found = at_all_pixels(features, x)
    assert found.shape[1] == features.n_features == 3 * MOST_CHANNELS
    torch.testing.assert_close(found[:, :64], expected[0], rtol=1e-4, atol=1e-4)
    for level in (1, 2):
        mine = found[:, 64 * level : 64 * (level + 1)]
        reducing = features.projections[level]
        assert isinstance(reducing, nn.Conv2d)
        projection = reducing.weight[..., 0, 0]
        torch.testing.assert_close(projection @ projection.T, torch.eye(64))
        theirs = torch.einsum("bchw,fc->bfhw", expected[level], projection)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_resnet_is_torchvisions_with_each_feature_where_it_looks_at() -> None:
    features = features_of("resnet18")
    resnet: Any = get_model("resnet18", weights=None).eval()
    resnet.load_state_dict(features.encoder.state_dict(), strict=False)
    x = torch.rand(1, 3, 24, 36)
    with torch.inference_mode():
        stem = resnet.relu(resnet.bn1(resnet.conv1(standardised(x))))
        layer1 = resnet.layer1(resnet.maxpool(stem))
        found = at_all_pixels(features, x)
    assert found.shape == (1, 128, 24, 36) and features.n_features == 128
    # The middle of a kernel with a stride lies on every second pixel, from the first.
    torch.testing.assert_close(found[:, :64, ::2, ::2], stem)
    torch.testing.assert_close(found[:, 64:, ::4, ::4], layer1)
    between = (layer1[..., :-1] + layer1[..., 1:]) / 2
    torch.testing.assert_close(found[:, 64:, ::4, 2:-4:4], between)


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_single_pixels_have_the_features_of_the_grid(
    name: EncoderName, n_channels: int
) -> None:
    features, x = features_of(name), torch.rand(1, n_channels, 19, 30)
    maps, rows, columns = features.maps(x), [0, 18, 7, 7], [0, 29, 28, 5]
    grid = features.rows(maps, 0, 19, 30)[0]
    found = features.at(maps, torch.tensor(rows), torch.tensor(columns))
    torch.testing.assert_close(found, grid[:, rows, columns].T)
    torch.testing.assert_close(features.rows(maps, 5, 4, 30)[0], grid[:, 5:9])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_the_head_scores_a_tile_as_the_whole_image(name: EncoderName) -> None:
    network = HeadNetwork(3, 2, features_of(name)).eval()
    x = torch.rand(1, 3, 113, 150)
    tile = make_tile(
        (50, 61, 70, 99), (113, 150), halo=network.halo, stride=network.stride
    )
    y0, x0, y1, x1 = tile.field
    assert (y0, x0) != (0, 0) and x1 < 150
    with torch.inference_mode():
        whole = network(x)[..., 50:70, 61:99]
        part = network(x[..., y0:y1, x0:x1])[..., 50 - y0 : 70 - y0, 61 - x0 : 99 - x0]
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4)
        changed = x.clone()
        changed[..., y0 - 1, x0:x1] += 1  # just outside of what the tile sees
        torch.testing.assert_close(network(changed)[..., 50:70, 61:99], whole)


def test_the_head_joins_fixed_and_pretrained_features() -> None:
    features = features_of("resnet18")
    network = HeadNetwork(3, 4, features).eval()
    x = torch.rand(2, 3, 21, 18)
    with torch.inference_mode():
        both = torch.cat([network.features(x), at_all_pixels(features, x)], dim=1)
        expected = network.head(both.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(x), expected)
    assert not any(each.requires_grad for each in features.parameters())
