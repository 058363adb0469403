"""The per-pixel head on a training set: fitted anew, at once, on every change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from napari_sparseseg.inputs.resolution import working_shape
from napari_sparseseg.learning.annotated_features import (
    AnnotatedFeatures,
    block_fields,
)
from napari_sparseseg.learning.events import HeadFitted, PartScore
from napari_sparseseg.learning.feature_cache import CachedEncoder, bytes_of
from napari_sparseseg.learning.head_fitting import fit_in_parts, update_head
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.validation import score_of
from napari_sparseseg.networks.encoders import EncoderWeights, as_three_channels
from napari_sparseseg.networks.pixel_head import HeadNetwork, PixelHead
from napari_sparseseg.networks.pretrained_features import PretrainedFeatures

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_sparseseg.learning.annotated_features import LabelledFeatures
    from napari_sparseseg.learning.options import TrainingOptions
    from napari_sparseseg.learning.training_set import TrainingSet

#: Working resolutions the head may choose from, in working pixels per image pixel.
SCALES = (0.5, 0.25, 1.0)

#: Resolutions at which all images together have more pixels than this are not tried:
#: the head is there to be quick.
MOST_WORKING_PIXELS = 3_000_000


#: Shares of an image's mean features that may be taken away, see ``Centring``.
CENTRINGS = (0.0, 0.5)

#: With fewer annotated images nothing is said of images that nobody painted.
FEWEST_IMAGES = 4

#: Steps of a fit that serves a comparison only.
TRIAL_STEPS = 150


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head that knows all strokes, and how one did that knew the learned ones.

    Attributes
    ----------
    network
        Fitted on all strokes, held out or not: it predicts.
    judged
        Fitted on the learned strokes only: it is scored on those held out. None as
        long as there is none.
    scale
        Working pixels per image pixel.
    """

    network: HeadNetwork
    judged: HeadNetwork | None
    scale: float


class HeadTraining:
    """Fits the head, and finds the working resolution that suits it.

    Every fit starts from the same seed, so a head depends on the labels of now and not
    on how they came about. Only the head that fills the time until it is fitted is
    made from the last one.

    Parameters
    ----------
    data
        Whose channels are taken.
    options
        Of the training.
    weights
        Of the encoder that the head looks through. Default: those of *options*.

    Attributes
    ----------
    scale
        Working pixels per image pixel; None until it was found out.
    centring
        Share of an image's mean features that is taken away.
    """

    def __init__(
        self,
        data: TrainingSet,
        options: TrainingOptions,
        weights: EncoderWeights | None = None,
    ) -> None:
        self._options = options
        self._pretrained = first_pretrained(options, data.n_channels, weights)
        self._features = AnnotatedFeatures(
            data.n_channels, options.device, self._pretrained
        )
        self.scale = options.scale
        self.centring = CENTRINGS[0]
        self._n_images = 0
        # Class values, scale and centring that it was fitted for, and the last head.
        self._last: tuple[tuple[Sequence[int], float, float], PixelHead] | None = None

    def fit(self, data: TrainingSet) -> tuple[FittedHead, HeadFitted]:
        """Fit the head on *data*; the first time several resolutions are tried.

        Where nothing is held out, and so nothing can be compared, the first of
        ``SCALES`` is taken.
        """
        return finish(self.fit_in_parts(data))

    def fit_in_parts(
        self, data: TrainingSet
    ) -> Parts[FittedHead | None, None, tuple[FittedHead, HeadFitted]]:
        """Fit like :meth:`fit`, with a break between parts.

        Whoever stops in between, as is necessary when *data* changes, leaves
        everything as it was.

        Yields
        ------
        FittedHead or None
            As soon as one can predict that knows all strokes: first the last head,
            brought up to date, then one that is fitted anew but not judged yet and may
            give way to one of another resolution.
        """
        scales = [self.scale] if self.scale is not None else self._candidates(data)
        first = scales[0]
        features, channels, held_out = yield from self._all(data, first)
        known = (data.classes.values, first, self.centring)
        if self._last is not None and self._last[0] == known:
            updated = update_head(
                self._last[1], features, channels, self._options.head, self._random()
            )
            yield FittedHead(self._network(updated, data), None, first)
        shown = yield from self._head(features, channels, data)
        self._last = (known, shown)
        yield FittedHead(self._network(shown, data), None, first)
        values, strokes = data.classes.values, data.held_out.held_out_strokes()
        if not held_out.any():
            # The judged head would be the same, and so nothing can be compared.
            network = self._network(shown, data)
            fitted = FittedHead(network, network, first)
            return fitted, HeadFitted(first, None, {}, is_new=False)
        judged: dict[float, PixelHead] = {}
        scores: dict[float, PartScore] = {}
        for scale in scales:
            judged[scale], confusion = yield from self._fit_learned(data, scale)
            score = score_of(confusion, values, strokes)
            if score is not None:
                scores[scale] = score
        best = max(scores, key=lambda scale: scores[scale].overall, default=first)
        if best != first:
            features, channels, _ = yield from self._all(data, best)
            shown = yield from self._head(features, channels, data)
            self._last = ((data.classes.values, best, self.centring), shown)
        if scores:
            self.scale = best
            self._features.keep_only(best)
        fitted = FittedHead(
            self._network(shown, data), self._network(judged[best], data), best
        )
        overall = {scale: score.overall for scale, score in scores.items()}
        score = scores.get(best)
        return fitted, HeadFitted(best, score, overall, is_new=best != first)

    def find_centring(self, data: TrainingSet) -> Parts[None, None, bool]:
        """Choose the centring that does best on images left out; tell of a change.

        Each half of the annotated images is predicted by a head that knows the other
        half. Decided when the number of annotated images has changed; those of
        :meth:`fit`'s resolution are compared. Whoever stops at a break, as is necessary
        when *data* changes, leaves everything as it was.
        """
        images = [image for image in data.images.values() if image.labels.any()]
        if self.scale is None or len(images) < FEWEST_IMAGES:
            return False
        if len(images) == self._n_images:
            return False
        scores: dict[float, float] = {}
        for share in CENTRINGS:
            parts = []
            for image in images:
                parts.append(
                    (yield from self._features.in_parts(data, image, self.scale, share))
                )
            scores[share] = yield from self._score_across(parts, data)
        before = self.centring
        self.centring = max(scores, key=lambda share: scores[share])
        self._n_images = len(images)
        return self.centring != before

    def _score_across(
        self, parts: Sequence[LabelledFeatures], data: TrainingSet
    ) -> Parts[None, None, float]:
        """Return the mean Dice on one half of the images after learning the other."""
        options = replace(self._options.head, steps=TRIAL_STEPS)
        scores = []
        for learned, left_out in ((parts[::2], parts[1::2]), (parts[1::2], parts[::2])):
            features, channels, _ = stack(learned)
            head = yield from fit_in_parts(
                features, channels, len(data.classes), options, self._random()
            )
            features, channels, _ = stack(left_out)
            confusion = _confusion(head, features, channels)
            score = score_of(confusion, data.classes.values, {})
            scores.append(0.0 if score is None else score.overall)
            yield
        return sum(scores) / len(scores)

    def cache_bytes(self, data: TrainingSet) -> int:
        """Return the bytes that pretrained features of all images may take on disk.

        There are those of whole blocks with their surroundings, at each resolution that
        may be tried.
        """
        pretrained = self._pretrained
        if pretrained is None or pretrained.remembered is None:
            return 0
        scales = [self.scale] if self.scale is not None else self._candidates(data)
        shapes = [
            working_shape(image.labels.shape, data.scale_of(image, scale))
            for image in data.images.values()
            for scale in scales
        ]
        return sum(
            bytes_of(
                pretrained.encoder,
                (field[2] - field[0], field[3] - field[1]),
            )
            for shape in shapes
            for field in block_fields(shape, pretrained)
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the weights of the encoder, and what was found out, as JSON values."""
        tensors = {}
        if self._pretrained is not None:
            tensors = self._pretrained.encoder.state_dict()
        return tensors, {
            "scale": self.scale,
            "centring": self.centring,
            "images": self._n_images,
        }

    def load_state(
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Go on from a state of :meth:`state`."""
        if self._pretrained is not None:
            self._pretrained.encoder.load_state_dict(tensors)
            remember_features(self._pretrained, self._options)
        self.scale = values["scale"]
        self.centring = values["centring"]
        self._n_images = values["images"]

    def _candidates(self, data: TrainingSet) -> list[float]:
        small = [s for s in SCALES if data.working_pixels(s) <= MOST_WORKING_PIXELS]
        return small or [min(SCALES)]

    def _fit_learned(
        self, data: TrainingSet, scale: float
    ) -> Parts[None, None, tuple[PixelHead, NDArray[np.int64]]]:
        features, channels, held_out = yield from self._all(data, scale)
        head = yield from self._head(features[~held_out], channels[~held_out], data)
        return head, _confusion(head, features[held_out], channels[held_out])

    def _all(
        self, data: TrainingSet, scale: float
    ) -> Parts[None, None, tuple[Tensor, Tensor, Tensor]]:
        parts = []
        for image in data.images.values():
            parts.append(
                (yield from self._features.in_parts(data, image, scale, self.centring))
            )
        return stack(parts)

    def _head(
        self, features: Tensor, channels: Tensor, data: TrainingSet
    ) -> Parts[None, None, PixelHead]:
        return fit_in_parts(
            features, channels, len(data.classes), self._options.head, self._random()
        )

    def _random(self) -> Generator:
        return Generator().manual_seed(self._options.seed)

    def _network(self, head: PixelHead, data: TrainingSet) -> HeadNetwork:
        with torch.random.fork_rng(devices=[]):
            network = HeadNetwork(data.n_channels, len(data.classes), self._pretrained)
        network.head = head
        network.centring.share.fill_(self.centring)
        return network.to(self._options.device).eval()


def first_pretrained(
    options: TrainingOptions, n_channels: int, weights: EncoderWeights | None = None
) -> PretrainedFeatures | None:
    """Return the pretrained features of the head of a training, if it has any.

    The weights of their encoder are *weights*, or what *options* say.

    Raises
    ------
    ImageError
        If an encoder cannot take so many channels.
    ModelFileError, OutputError
        If their weights cannot be had, or are those of another network.
    """
    if not options.head_start or options.head_features == "fixed":
        return None
    as_three_channels(torch.empty(n_channels, 0, 0))  # refuses other numbers
    # Weights are drawn by torch's global generator, which is the user's.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        features = PretrainedFeatures(options.head_features)
    weights = weights or EncoderWeights(options.encoder_weights)
    if not weights.are_drawn:
        features.encoder.load(weights)
    features.to(options.device)
    remember_features(features, options)
    return features


def remember_features(features: PretrainedFeatures, options: TrainingOptions) -> None:
    """Keep what an encoder, with its weights of now, finds, if that is asked for."""
    if options.feature_cache.wants(options.device):
        cache = options.feature_cache.open()
        features.remembered = CachedEncoder(features.encoder, cache)


def stack(parts: Sequence[LabelledFeatures]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N, F) features, (N,) channels and (N,) held out of several images."""
    return (
        torch.cat([part.features for part in parts]),
        torch.cat([part.channels for part in parts]),
        torch.cat([part.held_out for part in parts]),
    )


@torch.inference_mode()
def _confusion(
    head: PixelHead, features: Tensor, channels: Tensor
) -> NDArray[np.int64]:
    """Return the (C, C) confusion matrix of a head, rows = truth."""
    cells = channels * head.n_classes + head(features).argmax(dim=1)
    counts = torch.bincount(cells, minlength=head.n_classes**2).cpu()
    matrix: NDArray[np.int64] = counts.view(head.n_classes, head.n_classes).numpy()
    return matrix
