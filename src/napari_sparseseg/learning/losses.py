"""Losses that know unlabelled pixels and pixel weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sparseseg.learning.balancing import weight_map
from napari_sparseseg.learning.distributed import ALONE, Ranks
from napari_sparseseg.learning.loss_names import Loss

if TYPE_CHECKING:
    from napari_sparseseg.learning.options import TrainingOptions

#: ``"ce"``: :func:`weighted_cross_entropy`; ``"dice"``: :func:`dice_loss`;
#: ``"l1l2"``: :func:`norm_loss`.
LOSSES: tuple[Loss, ...] = get_args(Loss)

#: Added above and below the fraction of :func:`dice_loss`, in pixels.
DICE_SMOOTHING = 1.0


class MiniBatchLoss:
    """What is made small of one mini-batch, which may be scored part by part.

    The loss of the labels, with the pixel weights of the balancing, plus ``smoothness``
    times :func:`roughness`.

    Attributes
    ----------
    is_sum
        Whether the losses of the parts add up to that of the whole. Where they do not,
        all scores are needed at once, and each process finds the loss of the whole.

    Parameters
    ----------
    options
        Loss, its weights, smoothness and balancing.
    labels
        (B, H, W) int64 of the whole mini-batch: 0 = not annotated, k + 1 = channel k.
    inside
        (B, H, W) bool: which pixels lie in their image.
    ranks
        The processes that have the other parts of the mini-batch, where *labels* and
        *inside* are not all of it.
    """

    def __init__(
        self,
        options: TrainingOptions,
        labels: Tensor,
        inside: Tensor,
        ranks: Ranks = ALONE,
    ) -> None:
        self.is_sum = options.loss != "dice"
        self._options = options
        self._labels = labels
        self._inside = inside
        self._ranks = ranks
        self._weights = weight_map(labels, options.balancing, ranks)
        self._total_weight = ranks.sum(self._weights.sum())
        self._n_annotated = ranks.sum(count_annotated(labels))
        self._n_pairs = ranks.sum(count_pairs(inside))

    def __call__(self, scores: Tensor, part: Tensor | slice) -> Tensor:
        """Return the loss, or the share of a part in it.

        Parameters
        ----------
        scores
            (b, C, H, W) float, before softmax.
        part
            Which patches of the mini-batch these are.
        """
        loss = self._of_labels(scores, part)
        smoothness = self._options.smoothness
        if smoothness:
            share = roughness(scores, self._inside[part], self._n_pairs)
            loss = loss + smoothness * (
                share if self.is_sum else self._ranks.sum(share)
            )
        return loss

    def _of_labels(self, scores: Tensor, part: Tensor | slice) -> Tensor:
        labels, weights = self._labels[part], self._weights[part]
        if self._options.loss == "dice":
            return dice_loss(scores, labels, weights, self._ranks)
        if self._options.loss == "l1l2":
            return norm_loss(
                scores,
                labels,
                weights,
                self._options.l1_weight,
                self._options.l2_weight,
                self._n_annotated,
            )
        return weighted_cross_entropy(scores, labels, weights, self._total_weight)


def weighted_cross_entropy(
    scores: Tensor, labels: Tensor, weights: Tensor, total_weight: Tensor | None = None
) -> Tensor:
    """Categorical cross-entropy l times w, ``sum(w * l) / sum(w)``.

    Divided by the weights and not by the pixels, so that its size does not depend on
    how much is annotated (Bokhorst 2018, section 3, gives ``w * l`` for each pixel).

    Parameters
    ----------
    scores
        (B, C, H, W) float, before softmax.
    labels
        (B, H, W) int64: 0 = not annotated, k + 1 = channel k.
    weights
        (B, H, W) float, of :func:`~napari_sparseseg.learning.balancing.weight_map`.
    total_weight
        ``sum(w)`` of the whole mini-batch when *scores* are a part of it; the losses
        of the parts then add up to that of the whole. Default: of *weights*.

    Returns
    -------
    Tensor
        Scalar. Without a labelled pixel it is 0, with zero gradients.
    """
    pixel_loss = F.cross_entropy(
        scores.to(_precision(scores)), labels - 1, ignore_index=-1, reduction="none"
    )
    if total_weight is None:
        total_weight = weights.sum()
    total = torch.where(total_weight > 0, total_weight, 1)
    return (weights * pixel_loss).sum() / total


def dice_loss(
    scores: Tensor, labels: Tensor, weights: Tensor, ranks: Ranks = ALONE
) -> Tensor:
    """One minus the soft Dice of V-Net, the mean over the foreground classes.

    Dice is ``(2 sum(w p g) + 1) / (sum(w p^2) + sum(w g^2) + 1)`` with p the softmax
    output of a class and g its one-hot truth, summed over the annotated pixels of the
    mini-batch (Milletari et al. 2016, section 3; used by Fan 2022, section 3.3). The 1
    is ours: a class that is neither there nor predicted has no loss. So are the
    weights w, by which a pixel counts as w pixels; a Dice does not depend on their
    scale, and the 1 keeps its size since they sum to the annotated pixels. Channel 0,
    the class with the smallest value, is the background.

    Parameters
    ----------
    scores
        (B, C, H, W) float, C >= 2, before softmax.
    labels
        (B, H, W) int64: 0 = not annotated, k + 1 = channel k.
    weights
        (B, H, W) float, of :func:`~napari_sparseseg.learning.balancing.weight_map`.
    ranks
        The processes that have the other parts of the mini-batch, which are summed
        over too.

    Returns
    -------
    Tensor
        Scalar in [0, 1). Without a labelled pixel it is 0, with zero gradients.
    """
    truth = one_hot(labels, scores.shape[1])[:, 1:]
    probabilities = softmax(scores)[:, 1:]
    weights, pixels = weights[:, None], (0, 2, 3)
    overlap = (weights * probabilities * truth).sum(pixels)
    sizes = (weights * probabilities**2).sum(pixels) + (weights * truth).sum(pixels)
    joint = ranks.sum(torch.stack([overlap, sizes]))
    dice = (2 * joint[0] + DICE_SMOOTHING) / (joint[1] + DICE_SMOOTHING)
    return 1 - dice.mean()


def norm_loss(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor,
    l1_weight: float,
    l2_weight: float,
    n_images: Tensor | None = None,
) -> Tensor:
    """L1 and L2 norm of the error, ``lambda_1 ||y - p||_1 + lambda_2 ||y - p||_2``.

    With p the softmax output and y the one-hot truth of all annotated pixels of one
    image, then the mean over the images that have any (Abdulhamid, section 4.3). The
    second norm is not squared. With weights w the norms are ``sum(w |y - p|)`` and
    ``sqrt(sum(w (y - p)^2))``, so a pixel counts as w pixels. The norms are sums over
    pixels, no means: the first grows like their number, the second like its root.

    Parameters
    ----------
    scores, labels, weights
        As of :func:`weighted_cross_entropy`.
    l1_weight, l2_weight
        The two lambdas.
    n_images
        :func:`count_annotated` of the whole mini-batch when *scores* are a part of it;
        the losses of the parts then add up to that of the whole. Default: of *labels*.

    Returns
    -------
    Tensor
        Scalar. Without a labelled pixel it is 0, with zero gradients; where p is y the
        gradient of either norm is 0, too.
    """
    if n_images is None:
        n_images = count_annotated(labels)
    error = softmax(scores) - one_hot(labels, scores.shape[1]).float()
    weights, image = weights[:, None], (1, 2, 3)
    l1 = torch.linalg.vector_norm(weights * error, 1, image)
    l2 = torch.linalg.vector_norm(weights.sqrt() * error, 2, image)
    total: Tensor = (l1_weight * l1 + l2_weight * l2).sum()
    return total / n_images.clamp_min(1)


def roughness(scores: Tensor, inside: Tensor, n_pairs: Tensor | None = None) -> Tensor:
    """Mean difference ``|p_ij - p_neighbour|`` of the pixels that share a side.

    With p the softmax output and || the sum over classes, so that it is 0 for equal
    pixels and 2 for two that are sure of different classes, however many there are.
    Abdulhamid, section 6.2, proposes it against specks. It asks for no label, and
    specks are mostly where there is none, so unlabelled pixels count like the others,
    and no balancing weighs them; what lies beyond the border of an image does not
    count.

    Parameters
    ----------
    scores
        (B, C, H, W) float, before softmax.
    inside
        (B, H, W) bool: which pixels lie in their image.
    n_pairs
        :func:`count_pairs` of the whole mini-batch when *scores* are a part of it; the
        values of the parts then add up to that of the whole. Default: of *inside*.

    Returns
    -------
    Tensor
        Scalar in [0, 2]; 0 where no pixel has a neighbour.
    """
    if n_pairs is None:
        n_pairs = count_pairs(inside)
    probabilities = softmax(scores)
    below, beside = _pairs(inside)
    down = probabilities.diff(dim=2).abs().sum(dim=1) * below
    across = probabilities.diff(dim=3).abs().sum(dim=1) * beside
    return (down.sum() + across.sum()) / n_pairs.clamp_min(1)


def count_annotated(labels: Tensor) -> Tensor:
    """Return how many of (B, H, W) label maps have an annotated pixel."""
    return labels.flatten(1).any(dim=1).sum()


def count_pairs(inside: Tensor) -> Tensor:
    """Return how many pairs of pixels of (B, H, W) share a side and are inside."""
    below, beside = _pairs(inside)
    return below.sum() + beside.sum()


def _pairs(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, H - 1, W) and (B, H, W - 1): is the pair below, beside inside."""
    return inside[:, 1:] & inside[:, :-1], inside[:, :, 1:] & inside[:, :, :-1]


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Return (B, C, H, W) bool of (B, H, W) labels, False where they are 0."""
    values = torch.arange(1, n_classes + 1, device=labels.device)
    return labels[:, None] == values[:, None, None]


def softmax(scores: Tensor) -> Tensor:
    """Return the class probabilities of (B, C, H, W), in float32 at least."""
    return scores.softmax(dim=1, dtype=_precision(scores))


def _precision(scores: Tensor) -> torch.dtype:
    return torch.promote_types(scores.dtype, torch.float32)
