"""Learning from strokes: the head at once, the network step by step, the best shown.

A training is a generator of events. Stop = stop asking; pause = do not ask for a while.
Strokes, images and classes may change between two events.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor

from napari_sparseseg.errors import TrainingError
from napari_sparseseg.learning.distributed import ALONE, Ranks
from napari_sparseseg.learning.events import (
    HeadFitted,
    MemorySaved,
    PartDone,
    PartScore,
    Recovered,
    ScaleChosen,
    StepDone,
    TrainingEvent,
    Validated,
    scores_from_json,
    scores_to_json,
)
from napari_sparseseg.learning.head_training import FittedHead, HeadTraining
from napari_sparseseg.learning.held_out import HELD_OUT
from napari_sparseseg.learning.judge import NAMES, Judge, choose
from napari_sparseseg.learning.network_training import (
    NetworkTraining,
    copy_beside,
    under,
)
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.learning.parts import advance
from napari_sparseseg.networks.encoders import EncoderWeights
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.networks.model import ModelInfo, SegmentationModel
from napari_sparseseg.networks.pixel_head import HeadNetwork

if TYPE_CHECKING:
    from collections.abc import Generator as Events
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.learning.judge import Scores
    from napari_sparseseg.learning.training_set import (
        TrainingImage,
        TrainingSet,
        WorkingImage,
    )
    from napari_sparseseg.networks.model import Part, Shown
    from napari_sparseseg.networks.scoring import ScoringNetwork

    # Mean Dice by what predicts and name of the image.
    ByImage = dict[Shown, dict[str, float]]

T = TypeVar("T")

#: Working resolutions the network may choose from.
NETWORK_SCALES = (0.5, 0.25)

#: The finer one must be better by this Dice on held-out strokes: a coarser network sees
#: farther, which counts on images that nobody painted, and is quicker.
FINER_MARGIN = 0.02

#: Epochs that networks of all these resolutions learn side by side before all but the
#: best on held-out strokes are given up. Before that the head is shown where there is
#: one: such a young network knows the images that held-out strokes lie in, and little
#: of others.
TRIAL_EPOCHS = 2

#: Of an encoder that gets those of a checkpoint.
DRAWN = EncoderWeights("none")

#: After so many losses in a row that were no numbers a training gives up.
MOST_RECOVERIES = 10


class Trainer:
    """Trains head and network on a training set.

    Parameters
    ----------
    data
        Images, labels, classes. Change it through the methods of the trainer.
    options
        Balancing, network, recipe, resolution, seed, device.
    weights
        First ones of the encoders of head and network. Default: those of *options*.
    resumes
        Whether :meth:`load_state` comes next, which has the weights of all encoders,
        so that they need not be there any more.
    ranks
        The processes that train together, each by a trainer of the same data and
        options. The first one's has the model and the state.

    Raises
    ------
    LabelError
        If fewer than two classes are annotated.
    ImageError, ModelFileError, OutputError
        If the head cannot look through its encoder at such images, or its weights
        cannot be had.
    """

    def __init__(
        self,
        data: TrainingSet,
        options: TrainingOptions | None = None,
        weights: EncoderWeights | None = None,
        *,
        resumes: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        data.check_trainable()
        self.data = data
        self.options = options or TrainingOptions()
        self.ranks = ranks
        ranks.share_of(self.options.recipe.batch)  # refuses too many
        self.steps = 0
        self.shown: Shown = "head" if self.options.head_start else "network"
        self._reason = ""  # for it, as of the last validation
        self.head: FittedHead | None = None
        self.networks: list[NetworkTraining] = []
        self._generator = Generator().manual_seed(self.options.seed)
        self._weights = weights or EncoderWeights(self.options.encoder_weights)
        self._head_training = HeadTraining(
            data, self.options, DRAWN if resumes else self._weights
        )
        self._judge = Judge(data, self.options.device)
        self._changed = True
        self._changes = 0
        self._head_told = False
        self._young_until = self._trial_steps  # steps before which the head is shown
        # Of the network whose scores are told, by what predicts and name of the image.
        self._by_image: ByImage = {}
        self._to_validate = False  # an epoch has ended and was not scored yet
        self._step_start: Tensor | None = None  # random state, while a step goes on
        self._hashes: dict[str, tuple[NDArray[Any], str]] = {}
        self._end = math.inf  # steps after which the run ends

    # What the user does meanwhile.

    def put(self, *images: TrainingImage) -> None:
        """Add images, or replace those of the same name (new strokes).

        Strokes of classes too rare to hold any out are scored now, before they are
        learned.
        """
        for image in images:
            self._look(image)
        self.data.put(*images)
        self._mark_changed()

    def remove(self, name: str) -> None:
        """Take an image out."""
        self.data.remove(name)
        self._mark_changed()

    def use_classes(self, classes: ClassTable) -> None:
        """Use another class table; networks keep what they know of classes that stay.

        Raises
        ------
        LabelError
            If a value is annotated that is not in the table.
        """
        for image in self.data.images.values():
            classes.check_values(image.labels, image.name)
        old = self.data.classes.values
        if not {*classes.values} <= {*old}:
            # Held-out strokes of the old classes do not tell whether it knows new ones.
            self._young_until = self.steps + self._trial_steps
        places = {
            old.index(value): new
            for new, value in enumerate(classes.values)
            if value in old
        }
        self.data.classes = classes
        for network in self.networks:
            network.use_classes(len(classes), places)
        self._judge.first_looks.clear()
        self.head = None
        if self.networks:
            self.shown = "network"
        self._mark_changed()

    def _mark_changed(self) -> None:
        self._changes += 1
        self._changed = True
        self._head_told = False
        self._reason = ""

    # Learning.

    def run(self, steps: int | None = None) -> Iterator[TrainingEvent]:
        """Learn for *steps* mini-batches, or until nobody asks any more.

        A polynomial schedule ends with them; without *steps*, with the recipe.

        Yields
        ------
        TrainingEvent
            At least one a step.

        Raises
        ------
        LabelError
            If fewer than two classes are left that are annotated.
        TrainingError
            If the loss stays no number whatever the learning rate.
        """
        self._end = math.inf if steps is None else self.steps + steps
        last = self.options.recipe.max_epochs
        if last is not None:
            self._end = min(self._end, last * self.options.recipe.epoch)
        self._schedule_end()
        yield from self._catch_up()
        while self.steps < self._end:
            yield from self._step()
            yield from self._catch_up()

    def _schedule_end(self) -> None:
        if self.steps < self._end < math.inf:
            for network in self.networks:
                network.end_at(int(self._end))

    # Whoever stops at an event must be able to go on later, so whatever a method has to
    # do is done before it yields.

    def _catch_up(self) -> Iterator[TrainingEvent]:
        """Take changes and score an epoch that has ended, until nothing is left."""
        while self._changed or self._to_validate:
            yield from self._take_changes() if self._changed else self._end_epoch()

    def _take_changes(self) -> Iterator[TrainingEvent]:
        """Take what has changed, or give up when something newer has."""
        self.data.check_trainable()
        if self._fits_head and not self._head_told:
            fitted = yield from self._fit_head()
            if fitted is not None:
                yield fitted
            return
        if self._fits_head:
            is_new = yield from self._through(
                self._head_training.find_centring(self.data)
            )
            if is_new:
                self._head_told = False
            if is_new or is_new is None:
                return
        scales = [network.scale for network in self.networks] or self._network_scales()
        seen = yield from self._through(self._see(scales))
        if seen is None:
            return
        head_bytes = self._head_training.cache_bytes(self.data)
        for index, network in enumerate(self.networks):
            network.see(seen[index], _all_but(seen, index), head_bytes)
            network.judge_anew()
        if not self.networks:
            self.networks = [
                self._new_network(scale, seen, index, self._weights)
                for index, scale in enumerate(scales)
            ]
            # What was read is needed no more, and may be large.
            self._weights = EncoderWeights(self.options.encoder_weights)
            self._schedule_end()
        self._changed = self._head_told = False

    @property
    def _fits_head(self) -> bool:
        return self.options.head_start and self.ranks.is_first

    def _new_network(
        self,
        scale: float,
        seen: list[list[WorkingImage]],
        index: int,
        weights: EncoderWeights,
    ) -> NetworkTraining:
        """Return one of several networks, given the images of each and its number."""
        return NetworkTraining(
            self.data,
            seen[index],
            scale,
            self.options,
            self._generator,
            _all_but(seen, index),
            self._head_training.cache_bytes(self.data),
            weights=weights,
            ranks=self.ranks,
        )

    def _see(self, scales: list[float]) -> Events[None, None, list[list[WorkingImage]]]:
        """Let the judge see what is there now; return the images at some scales."""
        images = []
        for scale in scales:
            images.append((yield from self.data.at_in_parts(scale)))
        yield from self._judge.see_in_parts(self.head)
        return images

    def _through(
        self, parts: Events[object, None, T]
    ) -> Events[TrainingEvent, None, T | None]:
        """Yield between parts; return None when something has changed meanwhile."""
        changes = self._changes
        while (result := advance(parts)) is None:
            if self.options.micro_batch is None:
                continue
            yield PartDone(self.steps)
            if self._changes != changes:
                return None
        return result

    def _fit_head(self) -> Events[TrainingEvent, None, HeadFitted | None]:
        """Yield between parts; return None when there is something newer to fit."""
        changes = self._changes
        parts = self._head_training.fit_in_parts(self.data)
        while True:
            try:
                early = next(parts)
            except StopIteration as done:
                self.head, fitted = done.value
                self._head_told = True
                result: HeadFitted = fitted
                return result
            if early is not None:
                if self.head is None:
                    self.shown = "head"
                self.head = early
                yield HeadFitted(early.scale, None, {})
            elif self.options.micro_batch is not None:
                yield PartDone(self.steps)
            if self._changes != changes:
                return None

    def _network_scales(self) -> list[float]:
        if self.options.scale is not None:
            return [self.options.scale]
        if not self.data.has_held_out:
            return [min(NETWORK_SCALES)]
        return list(NETWORK_SCALES)

    def _step(self) -> Iterator[TrainingEvent]:
        if self._step_start is not None:  # a step was given up: draw the same again
            self._generator.set_state(self._step_start)
        self._step_start = self._generator.get_state()
        losses = []
        for network in self.networks:
            loss = yield from self._gather(network)
            if loss is None:
                return
            losses.append(loss)
        for network in self.networks:
            network.apply()
        self._step_start = None
        self.steps += 1
        self._to_validate = self.steps % self.options.recipe.epoch == 0
        loss = sum(losses) / len(losses)
        yield StepDone(self.steps, loss, self.networks[0].learning_rate)

    def _gather(
        self, network: NetworkTraining
    ) -> Events[TrainingEvent, None, float | None]:
        """Yield what happened; return the loss, None when there is to be a new try."""
        changes = self._changes
        parts = network.gather()
        loss: float | None = None
        while loss is None:
            try:
                loss = advance(parts)
            except (RuntimeError, MemoryError) as error:
                if network.micro_batch == 1 or not is_out_of_memory(error):
                    raise
                torch.cuda.empty_cache()
                network.micro_batch = max(1, network.micro_batch // 2)
                self._step_start = None
                yield MemorySaved(self.steps, network.micro_batch)
                return None
            if loss is None:
                yield PartDone(self.steps)
                if self._changes != changes:  # these patches are of before
                    return None
        if not math.isfinite(loss):
            self._step_start = None
            network.recover()
            if network.recoveries > MOST_RECOVERIES:
                raise TrainingError(
                    f"the loss was no number {network.recoveries} times in a row, with "
                    f"learning rates down to {network.learning_rate:.1e}; check the "
                    "images for extreme values, or train anew with another seed."
                )
            yield Recovered(self.steps, network.learning_rate)
            return None
        return loss

    def _end_epoch(self) -> Iterator[TrainingEvent]:
        scored = yield from self._through(self._scores())
        if scored is None:
            return
        self._to_validate = False
        ended = list(zip(self.networks, scored, strict=True))
        for network, (scores, _) in ended:
            network.end_epoch(scores)
        events: list[TrainingEvent] = []
        if len(self.networks) > 1 and self.steps >= self._trial_steps:
            events.append(self._settle())
        best = max(self.networks, key=_rank)
        for network, (scores, by_image) in ended:
            is_told = best.best_scores is scores or not self._by_image
            if network is best and is_told:
                self._by_image = by_image
        scores = best.best_scores
        self.shown, self._reason = self._choose(scores)
        images = self._by_image.get(self.shown, {})
        events.append(Validated(self.steps, scores, self.shown, self._reason, images))
        yield from events

    def _scores(self) -> Events[None, None, list[tuple[Scores, ByImage]]]:
        """Return the scores of each network as it is now, which the first process has.

        All that is decided follows from them; those by image are only told.
        """
        found: list[Scores] = []
        by_image: list[ByImage] = []
        for each in self.networks if self.ranks.is_first else ():
            found.append(
                (yield from self._judge.score_in_parts(each.average, each.scale))
            )
            by_image.append(self._judge.by_image)
        told = self.ranks.from_first([scores_to_json(each) for each in found])
        scores = [scores_from_json(each) for each in told]
        by_image += [{} for _ in scores[len(by_image) :]]
        return list(zip(scores, by_image, strict=True))

    @property
    def _trial_steps(self) -> int:
        return TRIAL_EPOCHS * self.options.recipe.epoch

    def _choose(self, scores: Scores) -> tuple[Shown, str]:
        if self.head is not None and self.steps < self._young_until:
            return "head", (
                f"{NAMES['head']}; the network is shown from step {self._young_until} "
                "on, if it is better"
            )
        return choose(scores, self.options.head_start, self.shown)

    def _settle(self) -> ScaleChosen:
        """Go on with the best of the networks alone."""
        scores = {network.scale: _merit(network) for network in self.networks}
        best = max(self.networks, key=lambda each: _merit(each) - self._handicap(each))
        for network in self.networks:
            if network is not best:
                self.data.forget_scale(network.scale)
        self.networks = [best]
        return ScaleChosen(self.steps, best.scale, scores)

    def _handicap(self, network: NetworkTraining) -> float:
        coarsest = min(each.scale for each in self.networks)
        return FINER_MARGIN if network.scale > coarsest else 0.0

    def _look(self, image: TrainingImage) -> None:
        """Score new strokes before they are learned, if there is what can be scored."""
        before = self.data.images.get(image.name)
        if before is None or before.labels.shape != image.labels.shape:
            return
        if self.head is not None and self.networks:
            network = self.networks[0]
            self._judge.look(image, self.head, network.average, network.scale)

    # Results.

    def model(self) -> SegmentationModel:
        """Return the best model so far, which does not change any more.

        It is a copy but for the weights of encoders that are frozen, and never learn.

        The weights of now are scored too, so that nothing is lost of a training that
        ends between two validations; the training itself is not changed.

        Raises
        ------
        TrainingError
            Before the first event.
        """
        if self._changed:  # the judge knows images and classes of before
            self._judge.see(self.head)
        scores: Scores = {"head": self._judge.score_head()}
        network: tuple[ScoringNetwork, float] | None = None
        if self.networks:
            now = [(*self._now(each), each.scale) for each in self.networks]
            best = max(now, key=lambda each: overall(each[1].get("network")))
            scores, network = best[1], (best[0], best[2])
        return self._assemble(network, *self._choose(scores), scores)

    def best_model(self) -> SegmentationModel:
        """Return what predicts now, at once: nothing is scored for it.

        A copy as of :meth:`model`.
        The best moment of the network, or its present one where none is known yet.

        Raises
        ------
        TrainingError
            Before anything was learned of the classes of now.
        """
        if not self.networks:
            return self._assemble(None, self.shown, self._reason, {})
        best = max(self.networks, key=_rank)
        network = best.best if best.best_scores else best.average
        return self._assemble(
            (network, best.scale), self.shown, self._reason, best.best_scores
        )

    def _assemble(
        self,
        network: tuple[ScoringNetwork, float] | None,
        shown: Shown,
        reason: str,
        scores: Scores,
    ) -> SegmentationModel:
        """Return a model of the head, a network at its scale, and its report."""
        parts: dict[Part, ScoringNetwork] = {}
        scales: dict[Part, float] = {}
        if self.head is not None:
            parts["head"], scales["head"] = self.head.network, self.head.scale
        if network is not None:
            parts["network"], scales["network"] = network
        if not parts:
            raise TrainingError(
                "nothing is learned yet of the classes of now; let the training run on."
            )
        info = ModelInfo(
            classes=self.data.classes,
            in_channels=self.data.n_channels,
            normalisation=self.data.normalisation,
            scales=scales,
            shown=shown,
            network=self.options.network,
            head_features=self.options.head_features,
            um_per_px=self.data.um_per_px,
            training=self._report(scores) | {"reason": reason},
        )
        parts = {name: copy_beside(part) for name, part in parts.items()}
        head = parts.get("head")
        if isinstance(head, HeadNetwork):  # it is to leave nothing of other images
            head.forget_images()
        return SegmentationModel(info, parts)

    def _now(self, network: NetworkTraining) -> tuple[ScoringNetwork, Scores]:
        """Return the better of the best moment and the present one, and its scores."""
        scores = self._judge.score(network.average, network.scale)
        if network.is_best(scores):
            return network.average, scores
        return network.best, network.best_scores

    def _report(self, scores: Scores) -> dict[str, Any]:
        counts = self.data.counts()
        return {
            "recipe": self.options.recipe_name,
            **self.options.loss_setting,
            **self.options.network_setting,
            "feature_cache": any(each.uses_feature_cache for each in self.networks),
            "balancing": self.options.balancing,
            "seed": self.options.seed,
            "steps": self.steps,
            "processes": self.ranks.count,
            "images": len(self.data.images),
            "pixels": {str(value): pixels for value, (pixels, _) in counts.items()},
            "strokes": {str(value): strokes for value, (_, strokes) in counts.items()},
            "held_out_dice": {
                part: {str(value): dice for value, dice in score.dice.items()}
                for part, score in scores.items()
                if score is not None
            },
        }

    # Going on later, or together.

    def facts(self) -> list[Any]:
        """Return what all processes must have in common, as JSON values."""
        return [
            [*self._image_keys().values()],
            self._label_hashes(),
            self.data.classes.to_json(),
            repr(self.options),
            repr(self.data.normalisation),
            self.steps,
            [network.scale for network in self.networks],
        ]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that is needed to go on to the bit: tensors and JSON values.

        The images are not in it; what is held out of each is found by its content.
        """
        random = self._step_start  # of an unfinished step nothing is kept
        if random is None:
            random = self._generator.get_state()
        tensors = {"generator": random}
        networks = []
        for index, network in enumerate(self.networks):
            weights, values = network.state()
            tensors |= {f"{index}.{name}": value for name, value in weights.items()}
            networks.append(values)
        encoder, head = self._head_training.state()
        tensors |= {f"head.{name}": value for name, value in encoder.items()}
        held_out: list[str] = []
        keys = self._image_keys()
        for name, _image in self.data.images.items():
            place = np.flatnonzero(self.data.held_out.membership[name] == HELD_OUT)
            tensors[f"held_out.{len(held_out)}"] = torch.from_numpy(place)
            held_out.append(keys[name])
        looks = [
            {part: matrix.tolist() for part, matrix in look.items()}
            for look in self._judge.first_looks
        ]
        return tensors, {
            "steps": self.steps,
            "changed": self._changed,
            "to_validate": self._to_validate,
            "shown": self.shown,
            "has_head": self.head is not None,
            "young_until": self._young_until,
            "head": head,
            "classes": self.data.classes.to_json(),
            "channels": self.data.n_channels,
            "network": {
                "name": self.options.network.name,
                "options": dict(self.options.network.options),
            },
            "networks": networks,
            "held_out": held_out,
            "held_out_random": self.data.held_out.random_state(),
            "first_looks": looks,
            "labels": self._label_hashes(),
        }

    def _image_keys(self) -> dict[str, str]:
        """Return what tells each image from the others without its name."""
        keys: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for name, image in self.data.images.items():
            key = f"{self._hash_of(image)} {'dense' if image.dense else 'sparse'}"
            seen[key] += 1
            keys[name] = f"{key} {seen[key]}"
        return keys

    def _hash_of(self, image: TrainingImage) -> str:
        """Return the hash of an image's pixels, which takes long and is kept."""
        known = self._hashes.get(image.name)
        if known is None or known[0] is not image.pixels:
            known = (image.pixels, content_hash(image.pixels))
            self._hashes[image.name] = known
        return known[1]

    def _label_hashes(self) -> list[str]:
        return [content_hash(image.labels) for image in self.data.images.values()]

    def load_state(
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Go on from a state of :meth:`state`, with the classes of then.

        Images and labels may be others than then; best scores are then found anew.
        """
        keys = self._image_keys()
        members = {
            key: tensors[f"held_out.{index}"].numpy()
            for index, key in enumerate(values["held_out"])
        }
        for name, image in self.data.images.items():
            place = members.get(keys[name])
            if place is None:
                continue
            if not image.dense:
                self.data.held_out.restore(name, image.labels, place)
            elif place.size:
                self.data.held_out.hold_out_image(name, image.labels)
            else:
                self.data.held_out.learn_image(name, image.labels)
        self.data.leave_something_to_learn()
        self.data.held_out.set_random_state(values["held_out_random"])
        self._generator.set_state(tensors["generator"])
        self._step_start = None
        self._head_training.load_state(under(tensors, "head"), values["head"])
        self.networks = []
        seen = [self.data.at(each["scale"]) for each in values["networks"]]
        for index, each in enumerate(values["networks"]):
            network = self._new_network(each["scale"], seen, index, DRAWN)
            network.load_state(under(tensors, str(index)), each)
            self.networks.append(network)
        self.steps = values["steps"]
        self._changed = values["changed"]
        self._to_validate = values["to_validate"]
        self.shown = values["shown"]
        self._young_until = values["young_until"]
        for look in values["first_looks"]:
            self._judge.first_looks.append({k: np.array(v) for k, v in look.items()})
        if self._fits_head and self.networks:
            self.head, _ = self._head_training.fit(self.data)
            if not values["has_head"]:  # the classes had just changed
                self.shown = "head"
        self._judge.see(self.head)
        if values["labels"] != self._label_hashes():
            self._changed = True
            for network in self.networks:
                network.judge_anew()


def _all_but(seen: list[list[WorkingImage]], index: int) -> list[WorkingImage]:
    """Return the images of all networks but one."""
    return [each for images in seen[:index] + seen[index + 1 :] for each in images]


def overall(score: PartScore | None) -> float:
    """Return the overall Dice, or -1 where nothing was scored, to rank by."""
    return -1.0 if score is None else score.overall


def _rank(network: NetworkTraining) -> float:
    return overall(network.best_scores.get("network"))


def _merit(network: NetworkTraining) -> float:
    """Return the Dice together with the head: what the network adds to what is shown.

    Alone, a finer network learns the texture of the painted images sooner, and is
    found worse than a coarser one on others.
    """
    scores = network.best_scores
    return overall(scores.get("both", scores.get("network")))


def content_hash(pixels: NDArray[Any]) -> str:
    """Return a hash of an image's shape, type and pixels."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
