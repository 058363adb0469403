"""Region classifiers: CAM's formula, erasing, levels of boxes, features of boxes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.networks.backbone import ResNetPyramid
from napari_sparseseg.networks.region_classifier import (
    RegionClassifier,
    RegionNetwork,
    assign_levels,
    erase,
    maps_of,
    normalise_maps,
    pool_regions,
    pool_scores,
)

BACKGROUND = 2


def network(complementary: bool = True, n_classes: int = 2) -> RegionNetwork:
    torch.manual_seed(0)
    pyramid = ResNetPyramid("resnet18", channels=6)
    return RegionNetwork(
        pyramid, n_classes, roi_size=5, complementary=complementary
    ).eval()


def features(count: int = 4) -> Tensor:
    return torch.randn(count, 6, 5, 5, generator=torch.Generator().manual_seed(0))


def test_the_map_is_that_of_cam() -> None:
    """M_c = sum_k S_k W_k^c, W the weights of a linear layer behind the pooling."""
    torch.manual_seed(0)
    classifier = RegionClassifier(6, 3, hidden=16)
    maps = classifier(features())
    weight, bias = classifier.first.parameters()
    last = F.relu(F.conv2d(features(), weight, bias, padding=1))
    linear = nn.Linear(16, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(classifier.second.weight[:, :, 0, 0])
    for region in range(4):
        for channel in range(3):
            expected = torch.zeros(5, 5)
            for k in range(16):
                expected += last[region, k] * linear.weight[channel, k]
            torch.testing.assert_close(maps[region, channel], expected)
    scores = linear(F.adaptive_avg_pool2d(last, 1).flatten(1))
    torch.testing.assert_close(pool_scores(maps), scores)


def test_there_are_512_channels_between_and_no_bias_behind() -> None:
    classifier = network().a
    shapes = {name: tuple(p.shape) for name, p in classifier.named_parameters()}
    assert shapes == {
        "first.weight": (512, 6, 3, 3),
        "first.bias": (512,),
        "second.weight": (3, 512, 1, 1),
    }


def test_maps_are_normalised_each_by_itself() -> None:
    maps = torch.tensor(
        [[[-4.0, 1.0], [3.0, 2.0]], [[2.0, 2.0], [4.0, 10.0]], [[5.0, 5.0], [5.0, 5.0]]]
    )
    expected = torch.tensor(
        [[[0, 1 / 3], [1, 2 / 3]], [[0, 0], [0.25, 1]], [[0.0, 0.0], [0.0, 0.0]]]
    )
    torch.testing.assert_close(normalise_maps(maps), expected)
    assert not normalise_maps(-maps[2:]).any()


def test_features_above_the_threshold_are_exactly_zero_and_others_as_they_were() -> (
    None
):
    salience = torch.tensor([[[0.0, 0.6], [0.60001, 1.0]]])
    given = torch.tensor([[[[1.0, 2.0], [3.0, torch.inf]], [[5.0, 6.0], [7.0, 8.0]]]])
    expected = [[[[1.0, 2.0], [0.0, 0.0]], [[5.0, 6.0], [0.0, 0.0]]]]
    assert erase(given, salience, 0.6).tolist() == expected


def test_no_gradient_flows_through_the_mask() -> None:
    """B's loss moves B and the features that it sees, but not A."""
    mining = network()
    given = features().requires_grad_()
    channels = torch.tensor([0, 1, 0, BACKGROUND])
    a, b = mining.classify(given, channels)
    assert b is not None
    b.square().sum().backward()
    assert all(parameter.grad is None for parameter in mining.a.parameters())
    assert mining.b is not None
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for parameter in mining.b.parameters()
    )
    hidden = normalise_maps(maps_of(a, channels))[:3] > 0.6
    assert given.grad is not None
    gradient = given.grad[:3].permute(0, 2, 3, 1)
    assert hidden.any()
    assert not gradient[hidden].any()
    assert gradient[~hidden].any()


@pytest.mark.parametrize("channel", [0, 1])
def test_b_sees_the_features_without_those_where_a_finds_the_box_class(
    channel: int,
) -> None:
    mining = network()
    a, b = mining.classify(features(), torch.full((4,), channel))
    assert mining.b is not None
    assert b is not None
    expected = features()
    for region in range(4):
        salient = a[region, channel].clamp_min(0)
        salient = (salient - salient.min()) / (salient.max() - salient.min())
        for y in range(5):
            for x in range(5):
                if salient[y, x] > 0.6:
                    expected[region, :, y, x] = 0
    assert not torch.equal(expected, features())
    torch.testing.assert_close(b, mining.b(expected))
    torch.testing.assert_close(a, mining.a(features()))


def test_for_background_the_likeliest_box_class_decides_what_b_sees() -> None:
    mining = network()
    assert mining.b is not None
    # Background's own score must not count, however high it is.
    with torch.no_grad():
        mining.a.second.weight[BACKGROUND] = 1
    a, b = mining.classify(features(32), torch.full((32,), BACKGROUND))
    best = [max((0, 1), key=lambda c: each[c].mean().item()) for each in a]
    assert (pool_scores(a).argmax(dim=1) == BACKGROUND).all()
    assert set(best) == {0, 1}
    torch.testing.assert_close(b, mining.classify(features(32), torch.tensor(best)).b)


def test_a_constant_map_erases_nothing() -> None:
    mining = network()
    with torch.no_grad():
        mining.a.second.weight.zero_()
    assert mining.b is not None
    b = mining.classify(features(), torch.zeros(4, dtype=torch.int64)).b
    torch.testing.assert_close(b, mining.b(features()))


def test_cam_has_no_classifier_b() -> None:
    mining = network(complementary=False)
    a, b = mining.classify(features(), torch.zeros(4, dtype=torch.int64))
    assert a.shape == (4, 3, 5, 5)
    assert b is None
    assert not any(name.startswith("b.") for name in mining.state_dict())


@pytest.mark.parametrize(
    ("side", "level"), [(1, 2), (32, 2), (64, 2), (128, 3), (224, 4), (448, 5)]
)
def test_levels_of_square_boxes(side: int, level: int) -> None:
    box = torch.tensor([[7.0, 3.0, 7 + side, 3 + side]])
    assert assign_levels(box).tolist() == [level]


def test_levels_follow_the_papers_formula() -> None:
    cases = [(56, 56), (111, 112), (112, 112), (448, 112), (223, 224), (900, 1000)]
    boxes = torch.tensor([[0.0, 0.0, w, h] for w, h in cases])
    by_formula = [math.floor(4 + math.log2(math.sqrt(w * h) / 224)) for w, h in cases]
    assert by_formula == [2, 2, 3, 4, 3, 6]
    assert assign_levels(boxes).tolist() == [2, 2, 3, 4, 3, 5]


class OnApplesGpu(Tensor):
    """A tensor of a device that has no float64."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        wrapped: Any = super().__torch_function__
        result = wrapped(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        return result


def test_features_are_read_on_devices_without_float64() -> None:
    levels = linear_levels([1, 10, 100, 1000])
    boxes = torch.tensor([[7.0, 3.0, 231.0, 227.0], [20.0, 30.5, 90.0, 80.0]])
    there = boxes.as_subclass(OnApplesGpu)
    with pytest.raises(TypeError, match="no float64"):
        there.double()
    assert assign_levels(there).tolist() == [4, 2]
    pooled = pool_regions(levels, [there], 5)
    assert torch.equal(pooled, pool_regions(levels, [boxes], 5))


def linear_levels(factors: list[float]) -> list[Tensor]:
    """Give P2..P5 of a 512 x 512 image: x, and y times a factor, in input pixels."""
    levels = []
    for stride, factor in zip((4, 8, 16, 32), factors, strict=True):
        centres = (torch.arange(512 // stride) + 0.5) * stride
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        levels.append(torch.stack([x, factor * y])[None])
    return levels


def test_features_of_a_box_are_read_at_its_place_on_its_level() -> None:
    """On a linear map each bin has the value at its centre."""
    levels = linear_levels([1, 10, 100, 1000])
    # Of levels 3, 2, 4 and 5, none of them starting on a whole pixel.
    boxes = [(100.5, 60.0, 228.0, 190.25), (80.0, 90.25, 111.5, 130.0)]
    boxes += [(100.0, 150.0, 330.0, 390.0), (20.0, 30.5, 490.0, 480.0)]
    pooled = pool_regions(levels, [torch.tensor(boxes)], 14)
    assert pooled.shape == (4, 2, 14, 14)
    for (x0, y0, x1, y1), factor, each in zip(
        boxes, (10, 1, 100, 1000), pooled, strict=True
    ):
        steps = (torch.arange(14) + 0.5) / 14
        x, y = x0 + steps * (x1 - x0), y0 + steps * (y1 - y0)
        torch.testing.assert_close(each[0], x.expand(14, 14))
        torch.testing.assert_close(each[1], (factor * y)[:, None].expand(14, 14))


def test_features_of_a_box_come_from_its_own_image() -> None:
    levels = [
        torch.cat([each * 0 + 1, each * 0 + 2]) for each in linear_levels([1] * 4)
    ]
    large, small = [10.0, 10, 300, 300], [10.0, 10, 40, 40]
    boxes = [torch.tensor([small, large]), torch.tensor([large, small, small])]
    pooled = pool_regions(levels, boxes, 3)
    assert pooled.amin(dim=(1, 2, 3)).tolist() == [1, 1, 2, 2, 2]
    assert pooled.amax(dim=(1, 2, 3)).tolist() == [1, 1, 2, 2, 2]


def test_it_agrees_with_torchvisions_own_assignment_and_pooling() -> None:
    from torchvision.ops import MultiScaleRoIAlign, roi_align

    generator = torch.Generator().manual_seed(0)
    names = ("2", "3", "4", "5")
    levels = {
        name: torch.randn(2, 3, 512 // 2 ** int(name), 512 // 2 ** int(name))
        for name in names
    }
    corners = torch.rand(2, 40, 2, generator=generator) * 150
    sides = torch.rand(2, 40, 2, generator=generator) * 350 + 4
    boxes = list(torch.cat([corners, corners + sides], dim=2))
    pooler = MultiScaleRoIAlign(list(names), 7, 2, canonical_scale=224)
    pooler(levels, boxes, [(512, 512)] * 2)  # it finds its levels when it is called
    joined = torch.cat(boxes)
    assigned = pooler.map_levels([joined]) + 2
    assert assigned.unique().tolist() == [2, 3, 4]
    assert torch.equal(assign_levels(joined), assigned)
    pooled = pool_regions(list(levels.values()), boxes, 7)
    for place in (0, 17, 39, 40, 79):
        k = int(assigned[place])
        only = [
            joined[place : place + 1] if i == place // 40 else joined[:0]
            for i in (0, 1)
        ]
        expected = roi_align(levels[str(k)], only, 7, 2.0**-k, 2, True)
        torch.testing.assert_close(pooled[place], expected[0])


def test_regions_of_several_images_pass_through_the_network() -> None:
    boxes = [torch.tensor([[4.0, 4, 40, 50]]), torch.tensor([[0.0, 0, 64, 64]] * 2)]
    with torch.inference_mode():
        a, b = network()(torch.rand(2, 1, 64, 64), boxes, torch.tensor([0, 1, 2]))
    assert b is not None
    assert a.shape == b.shape == (3, 3, 5, 5)
