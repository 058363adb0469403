"""Networks by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import normalize

from napari_sparseseg.errors import ImageError, OptionError
from napari_sparseseg.networks.encoders import IMAGENET_DEVIATION, IMAGENET_MEAN
from napari_sparseseg.networks.network_names import (
    BACKBONE_OF,
    ENCODER_OF,
    WHEN_TO_CHOOSE,
    NetworkName,
)
from napari_sparseseg.networks.registry import (
    NETWORKS,
    PRESETS,
    NetworkSpec,
    build_network,
    with_dropout,
)
from napari_sparseseg.networks.scoring import EncoderDecoder, ScoringNetwork
from napari_sparseseg.pseudo_masks.mining import MINING_PRESETS

if TYPE_CHECKING:
    from napari_sparseseg.networks.network_names import Preset

SMALL = NetworkSpec("unet", {"filters": 4, "levels": 3, "norm": "none"})


class Echo(ScoringNetwork):
    """Gives back what it is given."""

    stride = 2
    halo = 7

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.shape = (in_channels, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_presets_are_that_of_the_paper_and_a_smaller_one() -> None:
    paper, light = PRESETS["unet"]["paper"], PRESETS["unet"]["light"]
    assert paper == NetworkSpec("unet", {"filters": 32, "levels": 5, "norm": "none"})
    assert light.name == "unet"
    assert (light.options["filters"], light.options["levels"]) == (16, 4)


def test_every_network_that_can_be_chosen_is_there_and_known_to_the_window() -> None:
    names = {*get_args(NetworkName)}
    assert {*NETWORKS} == {*PRESETS} == {*WHEN_TO_CHOOSE} == names
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for name, words in WHEN_TO_CHOOSE.items():
        assert f"| `{name}` | {words} |" in readme


@pytest.mark.parametrize("preset", ["paper", "light"])
@pytest.mark.parametrize("net", PRESETS)
def test_the_encoder_is_the_one_whose_weights_the_window_offers(
    net: NetworkName, preset: Preset
) -> None:
    with torch.device("meta"):
        network = build_network(PRESETS[net][preset], 3, 2).network
    encoder = network.encoder.name if isinstance(network, EncoderDecoder) else None
    assert ENCODER_OF.get(net, {}).get(preset) == encoder


@pytest.mark.parametrize("preset", ["paper", "light"])
def test_so_is_the_backbone_of_region_mining(preset: Preset) -> None:
    assert MINING_PRESETS[preset].backbone == BACKBONE_OF[preset]


@pytest.mark.parametrize("preset", ["paper", "light"])
@pytest.mark.parametrize("net", PRESETS)
def test_presets_survive_json(net: NetworkName, preset: Preset) -> None:
    spec = PRESETS[net][preset]
    assert spec.name == net
    assert json.loads(json.dumps(dict(spec.options))) == dict(spec.options)


def test_builds_a_network_with_its_options() -> None:
    network = build_network(SMALL, in_channels=5, n_classes=2).eval()
    assert (network.stride, network.halo) == (4, 2 * (1 + 2 + 4) + 3 * (1 + 2) + 4)
    with torch.inference_mode():
        assert network(torch.rand(1, 5, 9, 11)).shape == (1, 2, 9, 11)


def test_networks_are_built_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "echo", Echo)
    network = build_network(NetworkSpec("echo"), 3, 4)
    assert isinstance(network.network, Echo)
    assert network.network.shape == (3, 4)
    assert (network.stride, network.halo) == (2, 7)


def test_networks_see_intensities_standardised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "echo", Echo)
    network = build_network(NetworkSpec("echo"), 2, 2)
    x = torch.tensor([0.0, 0.25, 0.5, 1.0]).expand(1, 2, 1, 4)
    assert network(x)[0, 0, 0].tolist() == [-2, -1, 0, 2]


def test_deeplab_sees_intensities_as_imagenet_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Three(Echo):
        input_mean = IMAGENET_MEAN
        input_deviation = IMAGENET_DEVIATION

    monkeypatch.setitem(NETWORKS, "echo", Three)
    grey = torch.rand(1, 1, 4, 4)
    seen = build_network(NetworkSpec("echo"), 1, 2)(grey)
    expected = normalize(grey.repeat(1, 3, 1, 1), IMAGENET_MEAN, IMAGENET_DEVIATION)
    torch.testing.assert_close(seen, expected)
    deeplab = build_network(NetworkSpec("deeplabv3", {"backbone": "resnet18"}), 1, 2)
    assert deeplab.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert deeplab.deviation.flatten().tolist() == pytest.approx(IMAGENET_DEVIATION)


def test_the_standardisation_is_kept_with_the_weights() -> None:
    network = build_network(SMALL, 3, 2)
    network.mean.fill_(0.1)
    other = build_network(SMALL, 3, 2)
    other.load_state_dict(network.state_dict())
    assert other.mean.unique().tolist() == pytest.approx([0.1])
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(other(x), network(x))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'resnet'.*unet, unet-vgg16") as error:
        build_network(NetworkSpec("resnet"), 3, 2)
    assert error.value.values == {"name": "resnet"}


@pytest.mark.parametrize(
    "options",
    [
        {"width": 3},
        {"norm": "layer"},
        {"filters": 0},
        {"filters": "many"},
        {"levels": 0},
        {"levels": 2.5},
    ],
    ids=str,
)
def test_options_that_make_no_network_are_refused_with_them(
    options: dict[str, Any],
) -> None:
    with pytest.raises(OptionError, match=str(next(iter(options)))) as error:
        build_network(NetworkSpec("unet", options), 3, 2)
    assert error.value.values


def test_channels_and_backbones_that_deeplab_cannot_take_are_refused() -> None:
    with pytest.raises(ImageError, match="2 channels, but this network takes 1 or 3"):
        build_network(NetworkSpec("deeplabv3"), 2, 2)
    with pytest.raises(OptionError, match=r"'vgg16'.*resnet18, resnet50"):
        build_network(NetworkSpec("deeplabv3", {"backbone": "vgg16"}), 3, 2)


def test_a_network_without_encoder_takes_no_weights_of_one() -> None:
    with pytest.raises(OptionError, match="no encoder that others have trained"):
        build_network(SMALL, 3, 2).load_encoder("imagenet")
    with pytest.raises(OptionError, match=r"to be frozen.* has no encoder"):
        build_network(SMALL, 3, 2).freeze_encoder()


@pytest.mark.parametrize("net", PRESETS)
def test_dropout_is_set_where_there_is_one(net: NetworkName) -> None:
    spec = PRESETS[net]["light"]
    if net in ("unet", "deeplabv3"):
        with pytest.raises(OptionError, match=rf"'{net}' has none.*vgg-fcn"):
            with_dropout(spec, 0.3)
        return
    with torch.device("meta"):
        network = build_network(with_dropout(spec, 0.3), 3, 2)
    shares = [each.p for each in network.modules() if isinstance(each, nn.Dropout)]
    assert shares == [0.3]


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(build_network(SMALL, 3, 2).state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=0)


def test_networks_keep_channels_together_in_memory() -> None:
    network = build_network(SMALL, 3, 2)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
