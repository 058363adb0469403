"""The per-pixel head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_sparseseg.networks import pixel_head
from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.image_statistics import fixed, measure_image
from napari_sparseseg.networks.pixel_head import (
    HIDDEN,
    Centring,
    HeadNetwork,
    PixelHead,
)


def seeded_head(n_features: int = 5, n_classes: int = 3) -> PixelHead:
    torch.manual_seed(0)
    return PixelHead(n_features, n_classes)


def test_head_is_two_hidden_layers_written_out() -> None:
    head = seeded_head()
    first, second, last = (
        layer for layer in head.layers if isinstance(layer, nn.Linear)
    )
    assert first.out_features == second.in_features == second.out_features == HIDDEN
    features = torch.randn(7, 5)
    hidden = (features @ first.weight.T + first.bias).clamp_min(0)
    hidden = (hidden @ second.weight.T + second.bias).clamp_min(0)
    expected = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(head(features), expected)


def test_head_standardises_features() -> None:
    head = seeded_head()
    features = torch.randn(7, 5)
    expected = head(features)
    mean, deviation = torch.randn(5), torch.rand(5) + 0.5
    head.mean.copy_(mean)
    head.deviation.copy_(deviation)
    torch.testing.assert_close(head(features * deviation + mean), expected)


def test_head_treats_every_pixel_alike_in_any_shape() -> None:
    head = seeded_head()
    features = torch.randn(2, 4, 6, 5)
    scores = head(features)
    assert scores.shape == (2, 4, 6, 3)
    torch.testing.assert_close(scores[1, 2, 3], head(features[1, 2, 3]))
    assert head(torch.zeros(0, 5)).shape == (0, 3)


def test_standardisation_is_kept_with_the_weights() -> None:
    head, other = seeded_head(), PixelHead(5, 3)
    head.mean.fill_(2)
    head.deviation.fill_(4)
    other.load_state_dict(head.state_dict())
    features = torch.randn(7, 5)
    torch.testing.assert_close(other(features), head(features))


@pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 50)])
def test_network_scores_each_pixel_by_its_own_features(
    in_channels: int, size: tuple[int, int]
) -> None:
    network = HeadNetwork(in_channels, n_classes=4).eval()
    x = torch.rand(2, in_channels, *size)
    with torch.inference_mode():
        scores = network(x)
        features = FixedFeatures(in_channels)(x)
        expected = network.head(features[1, :, -1, -1])
    assert scores.shape == (2, 4, *size)
    torch.testing.assert_close(scores[1, :, -1, -1], expected)


@pytest.mark.parametrize("pixels", [1, 100, 33 * 50])
def test_how_many_pixels_go_through_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    network = HeadNetwork(3, n_classes=4).eval()
    x = torch.rand(2, 3, 33, 50)
    with torch.inference_mode():
        features = FixedFeatures(3)(x).permute(0, 2, 3, 1)
        expected = network.head(features).permute(0, 3, 1, 2)
        monkeypatch.setattr(pixel_head, "PIXELS_IN_CACHE", pixels)
        torch.testing.assert_close(network(x), expected)


def test_network_sees_as_far_as_its_features() -> None:
    network = HeadNetwork(3, 2)
    assert network.halo == FixedFeatures(3).halo
    assert network.stride == 1


def head_network() -> HeadNetwork:
    torch.manual_seed(0)
    return HeadNetwork(3, 2).eval()


def test_a_share_of_each_features_mean_is_taken_away() -> None:
    centring = Centring()
    features = torch.randn(1, 5, 6, 7) + 3
    torch.testing.assert_close(centring(features), features, rtol=0, atol=0)
    centring.share.fill_(1)
    torch.testing.assert_close(
        centring(features).mean(dim=(0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5
    )
    centring.share.fill_(0.5)
    half = features - features.mean(dim=(2, 3), keepdim=True) / 2
    torch.testing.assert_close(centring(features), half)


def test_a_tile_is_centred_by_the_mean_of_its_image() -> None:
    network = head_network()
    network.centring.share.fill_(0.5)
    image = torch.rand(3, 64, 150)
    image[:, :, 75:] *= 0.5
    whole = network(image[None])[..., :30, :40]
    y, x = 30 + network.halo, 40 + network.halo
    with fixed(network, measure_image(network, image)):
        tile = network(image[None, :, :y, :x])[..., :30, :40]
    torch.testing.assert_close(tile, whole, rtol=1e-4, atol=1e-5)


def test_nothing_is_measured_where_nothing_is_taken_away() -> None:
    network, image = head_network(), torch.rand(3, 40, 40)
    assert measure_image(network, image) == ()
    network.centring.share.fill_(0.5)
    assert len(measure_image(network, image)) == 1
