"""What every network of the registry can be trusted with."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sparseseg import api
from napari_sparseseg.networks.image_statistics import fixed, measure
from napari_sparseseg.networks.registry import PRESETS, Standardised, build_network
from napari_sparseseg.networks.scoring import EncoderDecoder
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sparseseg.networks.network_names import NetworkName

N_CLASSES = 4


def fresh(net: NetworkName, in_channels: int = 3, seed: int = 0) -> Standardised:
    torch.manual_seed(seed)
    return build_network(PRESETS[net]["light"], in_channels, N_CLASSES)


@cache
def shared(net: NetworkName, in_channels: int = 3) -> Standardised:
    """Return a network in evaluation mode that no test changes."""
    return fresh(net, in_channels).eval()


def learning(net: NetworkName) -> Standardised:
    """Return a copy in training mode."""
    return copy.deepcopy(shared(net)).train()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def loss_of(network: Standardised, x: Tensor) -> Tensor:
    truth = torch.arange(N_CLASSES).repeat(x[:, 0].numel())[: x[:, 0].numel()]
    return F.cross_entropy(network(x), truth.view(x[:, 0].shape))


def state_of(network: Standardised) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("net", PRESETS)
class TestNetwork:
    @pytest.mark.parametrize("in_channels", [1, 3])
    def test_scores_images_of_any_size(
        self, net: NetworkName, in_channels: int
    ) -> None:
        for size in ((1, 1), (7, 13), (34, 1), (33, 50)):
            with torch.inference_mode():
                scores = shared(net, in_channels)(images(2, in_channels, *size))
            assert scores.shape == (2, N_CLASSES, *size)
            assert scores.isfinite().all()

    @pytest.mark.parametrize("side", [1, 40])
    def test_learns_from_a_batch_of_one(self, net: NetworkName, side: int) -> None:
        network = learning(net)
        optimiser = torch.optim.SGD(network.parameters(), 1e-3)
        loss_of(network, images(1, 3, side, side)).backward()
        optimiser.step()
        for name, value in network.state_dict().items():
            assert value.isfinite().all(), name

    def test_gradient_reaches_every_weight(self, net: NetworkName) -> None:
        network = learning(net)
        loss_of(network, images(2, 3, 64, 64)).backward()
        for name, weight in network.named_parameters():
            assert weight.requires_grad, name
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.abs().max() > 0, name

    def test_the_seed_decides(self, net: NetworkName) -> None:
        first, again, other = shared(net), fresh(net).eval(), fresh(net, seed=1).eval()
        x = images(1, 3, 32, 32)
        with torch.inference_mode():
            scores = first(x)
            assert torch.equal(scores, again(x))
            assert not torch.equal(scores, other(x))
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name

    def test_no_pixel_beyond_the_halo_changes_a_score(self, net: NetworkName) -> None:
        network = shared(net)
        halo, stride = network.halo, network.stride
        at = (halo // stride + 2) * stride
        x = images(1, 3, 2 * stride, 2 * at + stride)
        with torch.inference_mode(), fixed(network, measure(network, [x])):
            scores = network(x)[..., at : at + stride]
            for place in (0, stride // 2, stride - 1):
                changed = 3 - 5 * x
                seen = slice(at + place - halo, at + place + halo + 1)
                other = changed.clone()
                other[..., seen] = x[..., seen]
                beyond = network(other)[..., at + place]
                torch.testing.assert_close(
                    beyond, scores[..., place], rtol=0, atol=1e-5
                )
            within = network(torch.where(other == x, changed, x))[..., at + place]
        assert (within - scores[..., -1]).abs().max() > 1e-3

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    @pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
    def test_is_the_same_as_torchscript(self, net: NetworkName) -> None:
        network = shared(net)
        with torch.inference_mode():
            traced = torch.jit.trace(network, images(1, 3, 33, 40), check_trace=False)
            x = 1 - images(1, 3, 33, 40)
            torch.testing.assert_close(traced(x), network(x))

    def test_learns_and_predicts_and_comes_back_from_its_file(
        self, net: NetworkName, tmp_path: Path
    ) -> None:
        sample = tissue_phantom(0, (128, 128))
        model = api.train(
            sample.image,
            sample.labels,
            net=net,
            preset="light",
            steps=2,
            scale=0.5,
            patch_px=32,
            head_start=False,
            device="cpu",
        )
        path = tmp_path / "model.safetensors"
        api.save_model(model, path)
        loaded = api.load_model(path)
        (labels, maps), (again, same) = (
            api.predict(each, sample.image, probabilities=True, device="cpu")
            for each in (model, loaded)
        )
        assert loaded.info.network == PRESETS[net]["light"]
        assert labels.shape == (128, 128)
        assert {*np.unique(labels)} <= {*model.info.classes.values}
        assert maps.std(axis=(1, 2)).min() > 0
        np.testing.assert_array_equal(again, labels)
        np.testing.assert_array_equal(same, maps)


@pytest.mark.parametrize("net", [net for net in PRESETS if net != "unet"])
class TestNetworkWithEncoder:
    def test_scores_are_decoded_from_what_was_encoded(self, net: NetworkName) -> None:
        network = shared(net)
        inner = network.network
        assert isinstance(inner, EncoderDecoder)
        x = images(2, 3, 37, 50)
        with torch.inference_mode():
            features = inner.encode(network.standardise(x))
            scores = inner.decode(features, (37, 50))
            assert torch.equal(scores, network(x))
        strides = inner.encoder.strides
        assert strides == tuple(sorted(strides))
        grown = [-(-length // network.stride) * network.stride for length in (37, 50)]
        for each, stride in zip(features, strides, strict=True):
            assert [*each.shape[2:]] == [length // stride for length in grown]

    def test_a_frozen_encoder_gets_no_gradient_and_stays(
        self, net: NetworkName
    ) -> None:
        network = learning(net)
        inner = network.network
        assert isinstance(inner, EncoderDecoder)
        network.freeze_encoder()
        network.train()
        before = state_of(network)
        weights = [each for each in network.parameters() if each.requires_grad]
        optimiser = torch.optim.SGD(weights, 0.1)
        loss_of(network, images(2, 3, 40, 40)).backward()
        optimiser.step()
        assert all(each.grad is None for each in inner.encoder.parameters())
        assert weights
        assert all(each.grad is not None for each in weights)
        for name, value in network.state_dict().items():
            if name.startswith("network.encoder."):
                assert torch.equal(value, before[name]), name
        assert not torch.equal(
            network.state_dict()["network.classifier.weight"],
            before["network.classifier.weight"],
        )
