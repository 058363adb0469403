"""The per-pixel head on a training set: fitted anew, at once, on every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from napari_sparseseg.learning.events import HeadFitted, PartScore
from napari_sparseseg.learning.head_fitting import fit_head
from napari_sparseseg.learning.validation import score_of
from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.pixel_head import HeadNetwork, PixelHead

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_sparseseg.learning.options import TrainingOptions
    from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet

#: Working resolutions the head may choose from, in working pixels per image pixel.
SCALES = (0.5, 0.25, 1.0)

#: Resolutions at which all images together have more pixels than this are not tried:
#: the head is there to be quick.
MOST_WORKING_PIXELS = 3_000_000


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of the annotated pixels of one image.

    Attributes
    ----------
    features
        (n, F) float32.
    channels
        (n,) int64, from 0.
    held_out
        (n,) bool.
    """

    features: Tensor
    channels: Tensor
    held_out: Tensor


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head that knows all strokes, and how one did that knew the learned ones.

    Attributes
    ----------
    network
        Fitted on all strokes, held out or not: it predicts.
    judged
        Fitted on the learned strokes only: it is scored on those held out.
    scale
        Working pixels per image pixel.
    """

    network: HeadNetwork
    judged: HeadNetwork
    scale: float


class HeadTraining:
    """Fits the head, and finds the working resolution that suits it.

    Every fit starts from the same seed, so a head depends on the labels of now and not
    on how they came about.

    Attributes
    ----------
    scale
        Working pixels per image pixel; None until it was found out.
    """

    def __init__(self, data: TrainingSet, options: TrainingOptions) -> None:
        self._options = options
        self._features = FixedFeatures(data.n_channels).to(options.device)
        self._cache: dict[
            tuple[str, float], tuple[object, object, LabelledFeatures]
        ] = {}
        self.scale = options.scale

    def fit(self, data: TrainingSet) -> tuple[FittedHead, HeadFitted]:
        """Fit the head on *data*; the first time several resolutions are tried.

        Where nothing is held out, and so nothing can be compared, the first of
        ``SCALES`` is taken.
        """
        scales = [self.scale] if self.scale is not None else self._candidates(data)
        values, strokes = data.classes.values, data.held_out.held_out_strokes()
        tried = {scale: self._fit_learned(data, scale) for scale in scales}
        scores: dict[float, PartScore] = {}
        for scale, (_, confusion) in tried.items():
            score = score_of(confusion, values, strokes)
            if score is not None:
                scores[scale] = score
        best = max(scores, key=lambda scale: scores[scale].overall, default=scales[0])
        if scores:
            self.scale = best
        judged, _ = tried[best]
        shown = self._head(*self._stacked(data, best), data)
        fitted = FittedHead(
            self._network(shown, data), self._network(judged, data), best
        )
        overall = {scale: score.overall for scale, score in scores.items()}
        return fitted, HeadFitted(best, scores.get(best), overall)

    def _candidates(self, data: TrainingSet) -> list[float]:
        small = [s for s in SCALES if data.working_pixels(s) <= MOST_WORKING_PIXELS]
        return small or [min(SCALES)]

    def _fit_learned(
        self, data: TrainingSet, scale: float
    ) -> tuple[PixelHead, NDArray[np.int64]]:
        parts = [self._labelled(image, data, scale) for image in data.images.values()]
        features = torch.cat([part.features for part in parts])
        channels = torch.cat([part.channels for part in parts])
        held_out = torch.cat([part.held_out for part in parts])
        head = self._head(features[~held_out], channels[~held_out], data)
        n_classes = len(data.classes)
        with torch.inference_mode():
            predicted = head(features[held_out]).argmax(dim=1)
        cells = channels[held_out] * n_classes + predicted
        confusion = torch.bincount(cells, minlength=n_classes**2).cpu().numpy()
        return head, confusion.reshape(n_classes, n_classes)

    def _stacked(self, data: TrainingSet, scale: float) -> tuple[Tensor, Tensor]:
        parts = [self._labelled(image, data, scale) for image in data.images.values()]
        return (
            torch.cat([part.features for part in parts]),
            torch.cat([part.channels for part in parts]),
        )

    def _head(self, features: Tensor, channels: Tensor, data: TrainingSet) -> PixelHead:
        generator = Generator().manual_seed(self._options.seed)
        return fit_head(
            features, channels, len(data.classes), self._options.head, generator
        )

    def _labelled(
        self, image: TrainingImage, data: TrainingSet, scale: float
    ) -> LabelledFeatures:
        """Return the features of an image's annotated pixels, kept until it changes."""
        key = (image.name, scale)
        members = data.held_out.membership[image.name]
        state = (image, data.classes, data.scale_of(image, scale))
        known = self._cache.get(key)
        # An array is made anew whenever the membership of an image changes.
        if known is None or known[0] != state or known[1] is not members:
            computed = self._compute(image, data, scale)
            self._cache[key] = known = (state, members, computed)
        return known[2]

    @torch.no_grad()  # not inference mode: the head is fitted on these tensors
    def _compute(
        self, image: TrainingImage, data: TrainingSet, scale: float
    ) -> LabelledFeatures:
        working = data.working(image.name, scale)
        device = self._options.device
        labels = torch.maximum(working.learned, working.held_out).to(device)
        annotated = labels > 0
        features = self._features(working.pixels.to(device)[None])[0]
        return LabelledFeatures(
            features[:, annotated].T.contiguous(),
            labels[annotated] - 1,
            (working.held_out > 0).to(device)[annotated],
        )

    def _network(self, head: PixelHead, data: TrainingSet) -> HeadNetwork:
        with torch.random.fork_rng(devices=[]):
            network = HeadNetwork(data.n_channels, len(data.classes))
        network.head = head
        return network.to(self._options.device).eval()
