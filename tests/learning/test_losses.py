"""The losses of sparse labels: numbers by hand, gradients, and parts of a batch."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.learning.balancing import BALANCINGS, Balancing, weight_map
from napari_sparseseg.learning.losses import dice_loss, weighted_cross_entropy
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
def test_gradient_is_zero_exactly_where_nothing_is_annotated(
    balancing: Balancing,
) -> None:
    scores, labels = random_batch()
    weighted_cross_entropy(scores, labels, weight_map(labels, balancing)).backward()
    assert scores.grad is not None
    moved = (scores.grad != 0).any(dim=1)
    assert torch.equal(moved, labels != 0)


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


def test_dice_worked_by_hand() -> None:
    # Overlap 3/4; sizes 9/16 + 1/4 and 1; the third pixel is not annotated.
    scores = scores_of([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]])
    labels = torch.tensor([[[2, 1, 0]]])
    expected = 1 - (2 * 3 / 4 + 1) / (9 / 16 + 1 / 4 + 1 + 1)
    assert dice_loss(scores, labels).item() == pytest.approx(expected)


def test_dice_is_the_mean_over_the_foreground_classes_of_the_whole_batch() -> None:
    # The classes 2 and 3 in two patches; nothing is of class 3.
    scores = torch.cat(
        [scores_of([[0.2, 0.3, 0.5]] * 2), scores_of([[0.1, 0.6, 0.3]] * 2)]
    )
    labels = torch.tensor([[[1, 2]], [[2, 0]]])
    second = (2 * (0.3 + 0.6) + 1) / (2 * 0.3**2 + 0.6**2 + 2 + 1)
    third = 1 / (2 * 0.5**2 + 0.3**2 + 1)
    expected = 1 - (second + third) / 2
    assert dice_loss(scores, labels).item() == pytest.approx(expected)


def test_dice_is_monais_on_the_annotated_pixels() -> None:
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
    annotated = labels != 0
    picked = scores.movedim(1, -1)[annotated].T[None]  # (1, C, n)
    expected = theirs(picked, labels[annotated][None, None] - 1)
    loss = dice_loss(scores, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores)
    )


def test_dice_moves_annotated_pixels_alone() -> None:
    scores, labels = random_batch()
    dice_loss(scores, labels).backward()
    assert scores.grad is not None
    assert torch.equal((scores.grad != 0).any(dim=1), labels != 0)


def test_dice_without_a_label_is_0_and_moves_nothing() -> None:
    scores, labels = random_batch(share=0.0)
    loss = dice_loss(scores, labels)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()
