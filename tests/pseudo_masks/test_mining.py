"""Region mining: what is drawn, how it is weighed, that it learns and stops."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.models import get_model

from napari_sparseseg.annotations.boxes import Box
from napari_sparseseg.errors import ImageError, LabelError, OptionError, TrainingError
from napari_sparseseg.learning.events import MemorySaved
from napari_sparseseg.networks import published_weights
from napari_sparseseg.networks.published_weights import PUBLISHED, PublishedWeights
from napari_sparseseg.networks.region_classifier import RegionNetwork, pool_scores
from napari_sparseseg.pseudo_masks.mining import (
    MINING_PRESETS,
    MiningEvent,
    MiningImage,
    MiningOptions,
    MiningPartDone,
    MiningStarted,
    MiningStepDone,
    RegionMining,
    balance,
    stack_images,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FileServer

LIGHT = MINING_PRESETS["light"]
QUICK = replace(
    LIGHT,
    pyramid_channels=8,
    roi_size=7,
    negatives=6,
    batch=8,
    epochs=1,
    least_steps=1,
    micro_batch=None,
)


def boxed(
    boxes: list[list[float]] | None = None,
    channels: list[int] | None = None,
    shape: tuple[int, int, int] = (1, 96, 96),
    seed: int = 0,
) -> MiningImage:
    """Give noise with a brighter object in each box."""
    boxes = [[8.0, 8, 40, 40]] if boxes is None else boxes
    channels = [0] * len(boxes) if channels is None else channels
    pixels = torch.rand(shape, generator=Generator().manual_seed(seed)) / 2
    for x0, y0, x1, y1 in boxes:
        pixels[:, int(y0) : int(y1), int(x0) : int(x1)] += 0.4
    return MiningImage(
        pixels,
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(channels, dtype=torch.int64),
    )


def run(mining: RegionMining) -> list[MiningEvent]:
    return list(mining.run())


def watch(network: RegionNetwork) -> list[tuple[Any, ...]]:
    """Give a list that will hold what the network is given."""
    calls: list[tuple[Any, ...]] = []
    network.register_forward_pre_hook(lambda _, given: calls.append(given))
    return calls


def test_the_papers_numbers_are_the_default() -> None:
    paper = MiningOptions()
    assert MINING_PRESETS["paper"] == paper
    assert (paper.method, paper.backbone) == ("acol", "resnet50")
    assert (paper.negatives, paper.nearest, paper.erase_threshold) == (256, 0.1, 0.6)
    assert (paper.learning_rate, paper.momentum) == (1e-3, 0.9)
    assert (paper.weight_decay, paper.batch, paper.epochs) == (5e-4, 8, 50)
    assert paper.gradient_norm is None
    group = RegionMining([boxed()], 1, QUICK)._optimiser.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-3, 0.9, 5e-4)


def test_boxes_and_negatives_count_the_same_however_many_there_are() -> None:
    first, second = balance([torch.tensor([0, 1, 2, 2]), torch.tensor([2, 0, 2])], 2)
    assert first.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 4, 1 / 4])
    assert second.tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 4])
    (only_boxes,) = balance([torch.tensor([0, 1])], 2)
    assert only_boxes.tolist() == [0.5, 0.5]


def test_a_step_sees_all_boxes_and_as_many_negatives_as_wished() -> None:
    images = [boxed(seed=1), boxed([[50.0, 50, 90, 80], [4, 4, 9, 9]], seed=2)]
    mining = RegionMining(images, 1, QUICK)
    calls = watch(mining.network)
    run(mining)
    ((pixels, boxes, channels),) = calls
    assert pixels.shape == (2, 3, 96, 96)
    assert sum(len(each) for each in boxes) == len(channels) == 3 + 2 * 6
    start = 0
    for image, regions in zip(pixels, boxes, strict=True):
        (source,) = (each for each in images if torch.equal(each.pixels[0], image[0]))
        n_boxes = len(source.boxes)
        assert torch.equal(regions[:n_boxes], source.boxes)
        here = channels[start : start + len(regions)]
        assert here.tolist() == [0] * n_boxes + [1] * 6
        start += len(regions)
        for x0, y0, x1, y1 in regions[n_boxes:].tolist():
            for bx0, by0, bx1, by1 in source.boxes.tolist():
                assert x1 <= bx0 or bx1 <= x0 or y1 <= by0 or by1 <= y0


def test_negatives_are_drawn_anew_each_time() -> None:
    mining = RegionMining([boxed()], 1, replace(QUICK, epochs=2))
    calls = watch(mining.network)
    run(mining)
    (_, (first,), _), (_, (second,), _) = calls
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1:], second[1:])
    assert len({tuple(each) for each in first.tolist()}) == 7


def test_the_losses_are_means_over_boxes_plus_means_over_negatives() -> None:
    mining = RegionMining([boxed(), boxed(seed=1)], 1, QUICK)
    kept: list[Tensor] = []

    def keep(_: object, given: tuple[Any, ...], maps: Any) -> None:
        kept.extend((given[2], *maps))

    mining.network.register_forward_hook(keep)
    *_, done = run(mining)
    assert isinstance(done, MiningStepDone)
    channels, *maps = kept
    for loss, each in zip((done.loss_a, done.loss_b), maps, strict=True):
        log_p = F.log_softmax(each.mean(dim=(2, 3)), dim=1)
        boxes = torch.stack([-log_p[i, 0] for i in range(14) if channels[i] == 0])
        others = torch.stack([-log_p[i, 1] for i in range(14) if channels[i] == 1])
        assert (len(boxes), len(others)) == (2, 12)
        assert loss == pytest.approx(
            float((boxes.mean() + others.mean()).detach()), rel=1e-5
        )


def test_events_tell_what_is_learned_and_how_far_it_is() -> None:
    everywhere = boxed([[0.0, 0, 96, 96]], seed=4)
    images = [boxed(seed=1), boxed([]), boxed(seed=2), everywhere]
    mining = RegionMining(images, 1, replace(QUICK, batch=2, epochs=2))
    started, *steps = run(mining)
    assert started == MiningStarted(images=3, boxes=3, skipped=1, crowded=1, steps=4)
    assert all(isinstance(each, MiningStepDone) for each in steps)
    told = [(s.step, s.epoch) for s in steps if isinstance(s, MiningStepDone)]
    assert told == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_every_image_is_seen_once_an_epoch_in_another_order() -> None:
    images = [boxed([[8.0, 8, 20 + n, 40]], seed=n) for n in range(5)]
    mining = RegionMining(images, 1, replace(QUICK, batch=2, epochs=2))
    calls = watch(mining.network)
    run(mining)
    widths = [int(each[0, 2]) - 20 for _, boxes, _ in calls for each in boxes]
    assert sorted(widths[:5]) == sorted(widths[5:]) == [0, 1, 2, 3, 4]
    assert widths[:5] != widths[5:]


@pytest.mark.parametrize(
    ("n_images", "steps"), [(1, 50), (4, 50), (5, 50), (9, 75), (24, 150)]
)
def test_the_light_preset_learns_no_less_of_few_images(
    n_images: int, steps: int
) -> None:
    mining = RegionMining([boxed([[8.0, 8, 40, 40]])] * n_images, 1, LIGHT)
    started = next(mining.run())
    assert isinstance(started, MiningStarted)
    assert started.steps == steps


def test_of_few_images_there_are_more_epochs() -> None:
    options = replace(QUICK, batch=2, epochs=2, least_steps=5)
    started, *steps = run(RegionMining([boxed(seed=n) for n in range(3)], 1, options))
    assert isinstance(started, MiningStarted)
    assert started.steps == len(steps) == 6
    assert [s.epoch for s in steps if isinstance(s, MiningStepDone)] == [
        1,
        1,
        2,
        2,
        3,
        3,
    ]


def test_stop_is_to_stop_asking() -> None:
    mining = RegionMining([boxed()], 1, replace(QUICK, epochs=1000))
    events = mining.run()
    assert [type(e).__name__ for e in islice(events, 3)] == [
        "MiningStarted",
        "MiningStepDone",
        "MiningStepDone",
    ]
    assert mining.steps == 2


def test_whoever_stops_within_a_step_finds_the_weights_as_they_were() -> None:
    images = [boxed(seed=n) for n in range(3)]
    mining = RegionMining(images, 1, replace(QUICK, micro_batch=1))
    before = [p.detach().clone() for p in mining.network.parameters()]
    parts = list(islice(mining.run(), 1, 3))
    assert parts == [MiningPartDone(0)] * 2
    after = list(mining.network.parameters())
    assert all(map(torch.equal, before, after))


def test_parts_of_a_mini_batch_add_up_to_the_same_gradients() -> None:
    """Where batch normalisation uses what it knows, not what it sees."""
    images = [boxed([[8.0, 8, 40, 40]] * (n + 1), seed=n) for n in range(3)]
    gradients = []
    for micro_batch in (None, 1, 2):
        options = replace(QUICK, micro_batch=micro_batch, learning_rate=0.0)
        mining = RegionMining(images, 1, options)
        for layer in mining.network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.train = lambda mode=True, layer=layer: layer  # type: ignore[method-assign, misc]
                layer.training = False
        run(mining)
        gradients.append([p.grad for p in mining.network.parameters()])
    for others in gradients[1:]:
        for whole, added in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(added, whole, atol=1e-4, rtol=1e-3)


def test_where_memory_does_not_suffice_fewer_images_go_through_at_once() -> None:
    images = [boxed(seed=n) for n in range(5)]
    crowded = RegionMining(images, 1, replace(QUICK, epochs=2))

    def demand(_: object, given: tuple[Any, ...]) -> None:
        if len(given[0]) > 1:
            raise torch.OutOfMemoryError("no memory left")

    crowded.network.register_forward_pre_hook(demand)
    events = run(crowded)
    saved = [MemorySaved(0, 2), MemorySaved(0, 1)]
    assert events[1:3] == saved
    roomy = RegionMining(images, 1, replace(QUICK, epochs=2, micro_batch=1))
    assert [e for e in events if e not in saved] == run(roomy)
    for name, value in roomy.network.state_dict().items():
        assert torch.equal(value, crowded.network.state_dict()[name]), name


@pytest.mark.parametrize("message", ["no memory left", "no kernel image is available"])
def test_other_trouble_and_a_single_image_too_large_for_memory_are_errors(
    message: str,
) -> None:
    mining = RegionMining([boxed()], 1, QUICK)
    kind = torch.OutOfMemoryError if "memory" in message else RuntimeError

    def fail(*_: object) -> None:
        raise kind(message)

    mining.network.register_forward_pre_hook(fail)
    with pytest.raises(kind, match=message):
        run(mining)


def gradient_norms(gradient_norm: float | None, larger: float) -> list[float]:
    """Give how long the gradients of steps are, had they been so many times longer."""
    options = replace(
        QUICK, gradient_norm=gradient_norm, learning_rate=1e-9, weight_decay=0, epochs=2
    )
    mining = RegionMining([boxed()], 1, options)
    parameters = list(mining.network.parameters())
    for parameter in parameters:
        parameter.register_hook(lambda gradient: gradient * larger)
    return [
        math.hypot(*(float(p.grad.norm()) for p in parameters if p.grad is not None))
        for event in mining.run()
        if isinstance(event, MiningStepDone)
    ]


def test_long_gradients_are_shortened_where_that_is_asked_for() -> None:
    assert gradient_norms(5.0, 1e4) == pytest.approx([5.0, 5.0], rel=1e-4)
    assert min(gradient_norms(None, 1e4)) > 50
    short = gradient_norms(None, 1e-4)
    assert gradient_norms(5.0, 1e-4) == short
    assert max(short) < 5


def test_weights_are_downloaded_with_turns_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_server: FileServer
) -> None:
    path = tmp_path / "published.pth"
    torch.manual_seed(3)
    weights = get_model("resnet18", weights=None).state_dict()
    torch.save(OrderedDict(weights), path)
    content = path.read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    published = PublishedWeights((prefix,), len(content) / 2**20)
    monkeypatch.setitem(PUBLISHED, "resnet18", published)
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", file_server.url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    middle = len(content) // 2
    file_server.parts, file_server.pause_s = [content[:middle], content[middle:]], 0.3
    mining = RegionMining([boxed()], 1, replace(QUICK, weights="imagenet"))
    assert not file_server.asked
    events = mining.run()
    waiting = list(takewhile(lambda event: event == MiningPartDone(0), events))
    assert len(waiting) > 3
    assert isinstance(next(events), MiningStepDone)
    fresh = RegionMining([boxed()], 1, replace(QUICK, weights="imagenet"))
    found = fresh.network.pyramid.encoder.get_parameter("conv1.weight")
    assert torch.equal(found, weights["conv1.weight"])
    assert len(file_server.asked) == 1


def test_the_seed_decides_and_torchs_own_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    states = []
    for seed in (1, 1, 2):
        mining = RegionMining([boxed(), boxed(seed=1)], 1, replace(QUICK, seed=seed))
        run(mining)
        states.append(mining.network.state_dict())
    assert torch.equal(before, torch.get_rng_state())
    first, same, other = states
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["a.second.weight"], other["a.second.weight"])


@pytest.mark.parametrize("method", ["cam", "acol"])
def test_it_learns_two_classes_and_background(method: Any) -> None:
    """Bright and striped squares on noise, in images that were not learned."""

    def draw(seed: int) -> MiningImage:
        generator = Generator().manual_seed(seed)
        pixels = 0.4 + 0.1 * torch.rand(1, 128, 128, generator=generator)
        x, y = torch.randint(2, 30, (2,), generator=generator).tolist()
        pixels[:, y : y + 32, x : x + 32] += 0.4
        pixels[:, y + 60 : y + 92 : 4, x + 60 : x + 92] -= 0.3
        boxes = [[x, y, x + 32, y + 32], [x + 60, y + 60, x + 92, y + 92]]
        return MiningImage(
            pixels, torch.tensor(boxes, dtype=torch.float32), torch.tensor([0, 1])
        )

    options = replace(
        QUICK, method=method, batch=4, epochs=15, negatives=16, learning_rate=5e-3
    )
    mining = RegionMining([draw(seed) for seed in range(8)], 2, options)
    losses = [e.loss_a for e in mining.run() if isinstance(e, MiningStepDone)]
    assert losses[-1] < losses[0] / 2
    mining.network.eval()
    background = torch.tensor([[84.0, 4, 116, 36], [4, 92, 36, 124]])
    for seed in (100, 101, 102):
        image = draw(seed)
        regions = torch.cat([image.boxes, background])
        with torch.inference_mode():
            maps = mining.network(
                image.pixels[None], [regions], torch.tensor([0, 1, 2, 2])
            )
        assert pool_scores(maps.a).argmax(dim=1).tolist() == [0, 1, 2, 2]


def test_images_of_several_sizes_and_channels_are_learned_together() -> None:
    images = [boxed(shape=(3, 70, 128)), boxed(shape=(1, 128, 64))]
    stacked = stack_images([image.pixels for image in images])
    assert stacked.shape == (2, 3, 128, 128)
    assert torch.equal(stacked[0, :, :70], images[0].pixels)
    assert not stacked[0, :, 70:].any()
    assert torch.equal(stacked[1, 2, :, :64], images[1].pixels[0])
    assert not stacked[1, :, :, 64:].any()
    mining = RegionMining(images, 1, QUICK)
    calls = watch(mining.network)
    run(mining)
    ((_, boxes, _),) = calls
    sizes = [(70, 128), (128, 64)]
    for each in boxes:
        height, width = sizes[0] if each[:, 2].max() > 64 else sizes[1]
        assert each[:, 2].max() <= width
        assert each[:, 3].max() <= height


# Bad input.


def test_no_box_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no box on any of the 2 images"):
        RegionMining([boxed([]), boxed([])], 1, QUICK)


def test_boxes_of_one_class_that_cover_everything_are_an_error() -> None:
    everything = boxed([[0.0, 0, 96, 96]])
    with pytest.raises(TrainingError, match="leave no room for examples of background"):
        RegionMining([everything], 2, QUICK)


def test_boxes_of_two_classes_that_cover_everything_are_told_apart() -> None:
    crowded = boxed([[0.0, 0, 96, 96], [0, 0, 48, 96]], [0, 1])
    mining = RegionMining([crowded], 2, QUICK)
    calls = watch(mining.network)
    started, done = run(mining)
    assert isinstance(started, MiningStarted)
    assert started.crowded == 1
    assert isinstance(done, MiningStepDone)
    assert torch.tensor(done.loss_a).isfinite()
    ((_, _, channels),) = calls
    assert channels.tolist() == [0, 1]


def test_a_class_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LabelError, match=r"channels \[2\], but there are 2 classes"):
        RegionMining([boxed(channels=[2])], 2, QUICK)


def test_boxes_of_a_pixel_and_twice_the_same_are_learned() -> None:
    mining = RegionMining([boxed([[8.0, 8, 9, 9]] * 2)], 1, QUICK)
    *_, done = run(mining)
    assert isinstance(done, MiningStepDone)
    assert torch.tensor(done.loss_a).isfinite()


def test_a_loss_that_is_no_number_ends_it_with_the_weights_as_they_were() -> None:
    image = boxed()
    image.pixels[0, 3, 3] = torch.nan
    mining = RegionMining([image], 1, QUICK)
    with pytest.raises(TrainingError, match="no number at step 1"):
        run(mining)
    assert all(p.isfinite().all() for p in mining.network.parameters())


@pytest.mark.parametrize(
    "box", [[8, 8, 8, 20], [8, 8, 4, 20], [-1, 8, 20, 20], [8, 8, 20, 97]]
)
def test_empty_boxes_and_those_that_leave_the_image_are_refused(
    box: list[float],
) -> None:
    with pytest.raises(LabelError, match="is empty or leaves its image"):
        boxed([list(map(float, box))])


def test_tensors_of_other_shapes_are_refused() -> None:
    pixels, one = torch.zeros(1, 64, 64), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(LabelError, match=r"\(1, 5\) and their classes \(1,\)"):
        MiningImage(pixels, torch.zeros(1, 5), one)
    with pytest.raises(LabelError, match=r"\(2, 4\) and their classes \(1,\)"):
        MiningImage(pixels, torch.zeros(2, 4), one)
    with pytest.raises(ImageError, match="at least 64 pixels a side"):
        boxed([], shape=(1, 63, 96))
    with pytest.raises(ImageError, match="has 2 channels"):
        boxed(shape=(2, 96, 96))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "grad-cam"}, "'grad-cam'; expected one of cam, acol"),
        ({"negatives": 0}, "negatives of region mining is 0; expected at least 1"),
        ({"erase_threshold": 1.5}, "at least 0 and at most 1"),
        ({"nearest": 0.0}, "nearest of region mining is 0.0; expected a share above 0"),
        ({"nearest": 1.1}, "expected a share above 0 and at most 1"),
        ({"nearest": float("nan")}, "expected a share above 0 and at most 1"),
        ({"micro_batch": 0}, "micro_batch of region mining is 0"),
        ({"least_steps": 0}, "least_steps of region mining is 0; expected at least 1"),
        ({"gradient_norm": 0.0}, "gradient_norm of region mining is 0.0; expected a n"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(QUICK, **change)


def test_boxes_of_the_image_as_it_was_become_those_of_the_resampled_one() -> None:
    boxes = [Box(10, 20, 30, 60, class_value=7), Box(0, 0, 200, 400, class_value=3)]
    image = MiningImage.from_boxes(torch.zeros(1, 100, 100), boxes, [3, 7], (200, 400))
    assert image.boxes.tolist() == [[5, 5, 15, 15], [0, 0, 100, 100]]
    assert image.boxes.dtype == torch.float32
    assert image.channels.tolist() == [1, 0]
    with pytest.raises(LabelError, match=r"class values \[7\]; expected some of \[3\]"):
        MiningImage.from_boxes(torch.zeros(1, 100, 100), boxes, [3], (200, 400))
    none = MiningImage.from_boxes(torch.zeros(1, 100, 100), [], [3], (200, 400))
    assert none.boxes.shape == (0, 4)


@pytest.mark.parametrize("side", range(3, 2000, 37))
def test_a_box_as_large_as_its_image_stays_inside_after_resampling(side: int) -> None:
    whole = Box(0, 0, side, side + 1, class_value=1)
    for new in (64, 100, 256, 511):
        MiningImage.from_boxes(torch.zeros(1, new, new), [whole], [1], (side, side + 1))


@pytest.mark.gpu
def test_it_learns_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    mining = RegionMining([boxed(), boxed(seed=1)], 1, replace(QUICK, device="cuda"))
    *_, done = run(mining)
    assert isinstance(done, MiningStepDone)
    assert torch.tensor(done.loss_a).isfinite()
