"""The losses of sparse labels: numbers by hand, gradients, and parts of a batch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.learning.balancing import BALANCINGS, Balancing, weight_map
from napari_sparseseg.learning.loss_names import Loss
from napari_sparseseg.learning.losses import (
    LOSSES,
    MiniBatchLoss,
    count_annotated,
    count_pairs,
    dice_loss,
    norm_loss,
    roughness,
    weighted_cross_entropy,
)
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.networks.unet import UNet

N_CLASSES = 3


def random_batch(share: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Give scores (4, 3, 8, 8) that want a gradient, and sparse labels."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, N_CLASSES, 8, 8, generator=generator) * 3
    labels = torch.randint(1, N_CLASSES + 1, (4, 8, 8), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) >= share] = 0
    return scores.requires_grad_(), labels


def test_loss_worked_by_hand() -> None:
    # Probabilities of the true class: 3/4 and 1/2; the third pixel is not annotated.
    scores = torch.tensor([[[[0.0, 0.0, 50.0]], [[math.log(3), 0.0, -50.0]]]])
    labels = torch.tensor([[[2, 1, 0]]])
    weights = torch.tensor([[[1.0, 3.0, 0.0]]])
    loss = weighted_cross_entropy(scores, labels, weights)
    assert loss.item() == pytest.approx((math.log(4 / 3) + 3 * math.log(2)) / 4)


def test_balanced_loss_worked_by_hand() -> None:
    # Three pixels of class 1 at probability 1/2 and one of class 2 at 1/4: each class
    # counts one half, however many pixels it has.
    scores = torch.zeros(1, 2, 1, 4)
    scores[0, 0, 0, 3] = math.log(3)
    labels = torch.tensor([[[1, 1, 1, 2]]])
    loss = weighted_cross_entropy(scores, labels, weight_map(labels, "mini-batch"))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_a_batch_without_a_label_has_no_loss_and_moves_nothing(
    balancing: Balancing,
) -> None:
    network = nn.Conv2d(1, N_CLASSES, 3, padding=1)
    scores = network(torch.rand(2, 1, 8, 8))
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    loss = weighted_cross_entropy(scores, labels, weight_map(labels, balancing))
    loss.backward()
    assert loss.item() == 0
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_without_balancing_it_is_torchs_cross_entropy_with_an_ignored_class() -> None:
    scores, labels = random_batch()
    ours = weighted_cross_entropy(scores, labels, weight_map(labels, "none"))
    theirs = F.cross_entropy(scores, labels - 1, ignore_index=-1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, scores), torch.autograd.grad(theirs, scores)
    )


def test_mini_batch_balancing_is_torchs_cross_entropy_with_class_weights() -> None:
    scores, labels = random_batch()
    ours = weighted_cross_entropy(scores, labels, weight_map(labels, "mini-batch"))
    counts = torch.bincount(labels.flatten(), minlength=N_CLASSES + 1)[1:]
    theirs = F.cross_entropy(scores, labels - 1, 1 / counts, ignore_index=-1)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_size_does_not_depend_on_how_much_is_annotated(balancing: Balancing) -> None:
    scores, labels = random_batch()
    once = torch.cat([labels, torch.zeros_like(labels)], dim=2)
    twice = torch.cat([labels, labels], dim=2)
    wide = torch.cat([scores, scores], dim=3)
    torch.testing.assert_close(
        weighted_cross_entropy(wide, once, weight_map(once, balancing)),
        weighted_cross_entropy(wide, twice, weight_map(twice, balancing)),
    )


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("part", [1, 3])
def test_gradients_of_the_parts_of_a_batch_add_up_to_that_of_the_whole(
    balancing: Balancing, part: int
) -> None:
    torch.manual_seed(0)
    network = UNet(1, N_CLASSES, filters=4, levels=2, norm="none")
    _, labels = random_batch()
    labels[2] = 0  # a part without a label must not disturb
    images = torch.rand(4, 1, 8, 8)
    weights = weight_map(labels, balancing)

    loss = weighted_cross_entropy(network(images), labels, weights)
    whole = torch.autograd.grad(loss, list(network.parameters()))
    summed = torch.zeros(())
    for each in torch.arange(4).split(part):
        partial = weighted_cross_entropy(
            network(images[each]), labels[each], weights[each], weights.sum()
        )
        partial.backward()
        summed = summed + partial.detach()

    torch.testing.assert_close(summed, loss.detach())
    for parameter, expected in zip(network.parameters(), whole, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected)


# Dice.


def scores_of(probabilities: list[list[float]]) -> Tensor:
    """Give scores (1, C, 1, n) of n lists of C probabilities."""
    return torch.tensor(probabilities).log().T[None, :, None]


def annotated(labels: Tensor) -> Tensor:
    """Weigh each annotated pixel the same."""
    return weight_map(labels, "none")


def test_dice_worked_by_hand() -> None:
    # Overlap 3/4; sizes 9/16 + 1/4 and 1; the third pixel is not annotated.
    scores = scores_of([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]])
    labels = torch.tensor([[[2, 1, 0]]])
    expected = 1 - (2 * 3 / 4 + 1) / (9 / 16 + 1 / 4 + 1 + 1)
    loss = dice_loss(scores, labels, annotated(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_dice_worked_by_hand() -> None:
    # One pixel of class 2 and three of class 1 weigh 2 in all, each class.
    scores = scores_of([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1], [0.8, 0.2]])
    labels = torch.tensor([[[2, 1, 1, 1]]])
    predicted = 2 * 0.75**2 + 2 / 3 * (0.5**2 + 0.1**2 + 0.2**2)
    expected = 1 - (2 * 2 * 0.75 + 1) / (predicted + 2 + 1)
    loss = dice_loss(scores, labels, weight_map(labels, "mini-batch"))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_the_mean_over_the_foreground_classes_of_the_whole_batch() -> None:
    # The classes 2 and 3 in two patches; nothing is of class 3.
    scores = torch.cat(
        [scores_of([[0.2, 0.3, 0.5]] * 2), scores_of([[0.1, 0.6, 0.3]] * 2)]
    )
    labels = torch.tensor([[[1, 2]], [[2, 0]]])
    second = (2 * (0.3 + 0.6) + 1) / (2 * 0.3**2 + 0.6**2 + 2 + 1)
    third = 1 / (2 * 0.5**2 + 0.3**2 + 1)
    expected = 1 - (second + third) / 2
    loss = dice_loss(scores, labels, annotated(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("most", [1, 4])
def test_dice_is_monais_on_the_annotated_pixels_as_often_as_they_weigh(
    most: int,
) -> None:
    from monai.losses.dice import DiceLoss

    theirs = DiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        squared_pred=True,
        batch=True,
        smooth_nr=1,
        smooth_dr=1,
    )
    scores, labels = random_batch()
    times = torch.randint(1, most + 1, labels.shape) * (labels != 0)
    pixels = torch.arange(times.numel()).repeat_interleave(times.flatten())
    picked = scores.movedim(1, -1).flatten(0, 2)[pixels].T[None]  # (1, C, n)
    expected = theirs(picked, labels.flatten()[pixels][None, None] - 1)
    loss = dice_loss(scores, labels, times.float())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores)
    )


# L1 and L2 norm.


def test_norms_worked_by_hand() -> None:
    # Two images. In the first the errors are (-1/4, 1/4) and (1/2, -1/2), and a pixel
    # that is not annotated; in the second (-0.9, 0.9).
    scores = torch.cat(
        [
            scores_of([[0.75, 0.25], [0.5, 0.5], [0.3, 0.7]]),
            scores_of([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]),
        ]
    )
    labels = torch.tensor([[[1, 2, 0]], [[1, 0, 0]]])
    l1 = (2 * 0.25 + 2 * 0.5 + 2 * 0.9) / 2
    l2 = (math.sqrt(2 * 0.25**2 + 2 * 0.5**2) + math.sqrt(2 * 0.9**2)) / 2
    for weights, expected in (((1, 0), l1), ((0, 1), l2), ((3, 0.5), 3 * l1 + l2 / 2)):
        loss = norm_loss(scores, labels, annotated(labels), *weights)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_norms_worked_by_hand() -> None:
    # One pixel of class 2 and three of class 1: they weigh 2 and 2/3 each.
    scores = scores_of([[0.25, 0.75], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    labels = torch.tensor([[[2, 1, 1, 1]]])
    weights = weight_map(labels, "instance")
    l1 = 2 * (2 * 0.25) + 3 * 2 / 3 * (2 * 0.5)
    l2 = math.sqrt(2 * (2 * 0.25**2) + 3 * 2 / 3 * (2 * 0.5**2))
    loss = norm_loss(scores, labels, weights, 1, 0)
    assert loss.item() == pytest.approx(l1, rel=1e-5)
    loss = norm_loss(scores, labels, weights, 0, 1)
    assert loss.item() == pytest.approx(l2, rel=1e-5)


def test_norms_are_torchs_on_full_labels() -> None:
    scores, labels = random_batch(share=1.0)
    truth = F.one_hot(labels - 1, N_CLASSES).movedim(-1, 1).float()
    probabilities = scores.softmax(dim=1)
    l1 = F.l1_loss(probabilities, truth, reduction="sum") / len(labels)
    squares = F.mse_loss(probabilities, truth, reduction="none").flatten(1).sum(dim=1)
    expected = 0.5 * l1 + 2 * squares.sqrt().mean()
    loss = norm_loss(scores, labels, annotated(labels), 0.5, 2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores)
    )


def test_images_without_a_label_do_not_count_in_the_norms() -> None:
    scores, labels = random_batch()
    more = torch.cat([labels, torch.zeros_like(labels)])
    wide = torch.cat([scores, scores])
    torch.testing.assert_close(
        norm_loss(wide, more, annotated(more), 1, 1),
        norm_loss(scores, labels, annotated(labels), 1, 1),
    )


def test_norms_of_what_is_right_are_0_and_so_is_their_gradient() -> None:
    labels = torch.randint(1, N_CLASSES + 1, (2, 4, 4))
    truth = F.one_hot(labels - 1, N_CLASSES).movedim(-1, 1)
    scores = (truth * 1000.0).requires_grad_()
    loss = norm_loss(scores, labels, annotated(labels), 1, 1)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


# Every loss of labels.

LossOfLabels = Callable[[Tensor, Tensor, Tensor], Tensor]


def l1_and_l2(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return norm_loss(scores, labels, weights, 0.5, 2.0)


EVERY = pytest.mark.parametrize("loss", [weighted_cross_entropy, dice_loss, l1_and_l2])


@EVERY
@pytest.mark.parametrize("balancing", BALANCINGS)
def test_annotated_pixels_alone_are_moved(
    loss: LossOfLabels, balancing: Balancing
) -> None:
    scores, labels = random_batch()
    loss(scores, labels, weight_map(labels, balancing)).backward()
    assert scores.grad is not None
    assert torch.equal((scores.grad != 0).any(dim=1), labels != 0)


@EVERY
def test_without_a_label_it_is_0_and_moves_nothing(loss: LossOfLabels) -> None:
    scores, labels = random_batch(share=0.0)
    found = loss(scores, labels, weight_map(labels, "instance"))
    found.backward()
    assert found.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@EVERY
def test_gradients_are_those_of_finite_differences(loss: LossOfLabels) -> None:
    scores, labels = random_batch(share=0.5)
    weights = weight_map(labels, "instance")
    some = (slice(2), ..., slice(3), slice(3))
    small = scores.detach()[some].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels[:2, :3, :3], weights[:2, :3, :3].double()), small
    )


@EVERY
@pytest.mark.parametrize("balancing", ["instance", "mini-batch"])
def test_balanced_classes_count_the_same_however_much_is_painted(
    loss: LossOfLabels, balancing: Balancing
) -> None:
    # Class 2 is painted on one pixel, then on three that look the same.
    few = torch.tensor([[[1, 1, 1, 2, 0, 0]]])
    many = torch.tensor([[[1, 1, 1, 2, 2, 2]]])
    scores = scores_of([[0.6, 0.4]] * 3 + [[0.7, 0.3]] * 3).requires_grad_()
    shares = []
    for labels in (few, many):
        found = loss(scores, labels, weight_map(labels, balancing))
        (gradient,) = torch.autograd.grad(found, scores)
        of_class = [gradient[0, 0, 0, part].sum() for part in (slice(3), slice(3, 6))]
        shares.append(of_class[1] / of_class[0])
    torch.testing.assert_close(shares[0], shares[1], rtol=0.15, atol=0)


# Smoothness.


def everywhere(scores: Tensor) -> Tensor:
    return torch.ones(len(scores), *scores.shape[2:], dtype=torch.bool)


def test_roughness_worked_by_hand() -> None:
    # Probabilities of the first of two classes; each difference counts for both:
    #   1.0  0.5      down:   1.0 -> 0.2, 0.5 -> 0.5
    #   0.2  0.5      across: 1.0 -> 0.5, 0.2 -> 0.5
    first = torch.tensor([[1.0, 0.5], [0.2, 0.5]])
    scores = torch.stack([first, 1 - first]).log()[None]
    loss = roughness(scores, everywhere(scores))
    assert loss.item() == pytest.approx(2 * (0.8 + 0 + 0.5 + 0.3) / 4)


def test_roughness_does_not_count_what_lies_beyond_the_border() -> None:
    # Of the same pixels the upper right one is outside: two pairs are left.
    first = torch.tensor([[1.0, 0.5], [0.2, 0.5]])
    scores = torch.stack([first, 1 - first]).log()[None].requires_grad_()
    inside = torch.tensor([[[True, False], [True, True]]])
    loss = roughness(scores, inside)
    assert loss.item() == pytest.approx(2 * (0.8 + 0.3) / 2)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert not gradient[..., 0, 1].any()
    assert gradient[..., 1, 1].any()
    nowhere = roughness(scores, torch.zeros_like(inside))
    assert nowhere.item() == 0
    assert not torch.autograd.grad(nowhere, scores)[0].any()


def test_roughness_is_the_total_variation_of_kornia() -> None:
    from kornia.losses import total_variation

    scores, _ = random_batch()
    variation = total_variation(scores.softmax(dim=1), reduction="sum")
    n_pairs = 4 * 2 * 8 * 7
    expected = variation.sum() / n_pairs
    torch.testing.assert_close(roughness(scores, everywhere(scores)), expected)


def test_roughness_is_between_0_and_2() -> None:
    flat = torch.randn(2, N_CLASSES, 1, 1).expand(-1, -1, 6, 6)
    assert roughness(flat, everywhere(flat)).item() == 0
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    hard = F.one_hot(checks, N_CLASSES).movedim(-1, 0)[None] * 1000.0
    assert roughness(hard, everywhere(hard)).item() == 2


def test_gradients_of_roughness_are_those_of_finite_differences() -> None:
    scores, _ = random_batch()
    small = scores.detach()[:2, :, :3, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: roughness(x, everywhere(x)), small)


# What a mini-batch is learned by.


@pytest.mark.parametrize("smoothness", [0.0, 0.7])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_mini_batch_has_the_loss_of_its_labels_and_its_smoothness(
    loss: Loss, smoothness: float
) -> None:
    scores, labels = random_batch()
    inside = torch.rand(labels.shape) < 0.9
    options = TrainingOptions(
        loss=loss,
        balancing="instance",
        l1_weight=0.5,
        l2_weight=2.0,
        smoothness=smoothness,
    )
    functions: dict[Loss, LossOfLabels] = {
        "ce": weighted_cross_entropy,
        "dice": dice_loss,
        "l1l2": l1_and_l2,
    }
    expected = functions[loss](scores, labels, weight_map(labels, "instance"))
    expected = expected + smoothness * roughness(scores, inside)
    found = MiniBatchLoss(options, labels, inside)
    torch.testing.assert_close(found(scores, slice(None)), expected)
    parts = torch.arange(4).split(3)
    if found.is_sum:
        summed = sum(found(scores[part], part) for part in parts)
        torch.testing.assert_close(summed, expected)
    assert found.is_sum == (loss != "dice")


def test_counts_of_a_mini_batch() -> None:
    labels = torch.tensor([[[0, 3], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [2, 1]]])
    assert count_annotated(labels).item() == 2
    assert count_pairs(labels == 0).item() == 2 + 4 + 0
