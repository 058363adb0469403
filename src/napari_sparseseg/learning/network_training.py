"""One network in training: its weights, their average, optimiser and best moment."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LinearLR, PolynomialLR

from napari_sparseseg.errors import TrainingWarning
from napari_sparseseg.learning.distributed import ALONE, Ranks
from napari_sparseseg.learning.events import score_from_json
from napari_sparseseg.learning.feature_cache import MIB, CachedEncoder
from napari_sparseseg.learning.feature_patches import (
    FeatureSampler,
    OrientedFeatures,
    bytes_needed,
    bytes_of_block,
)
from napari_sparseseg.learning.losses import MiniBatchLoss
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.patches import FeaturePatches, PatchSampler
from napari_sparseseg.learning.schedules import (
    build_schedule,
    end_at,
    end_epoch,
    end_step,
    go_on_from,
)
from napari_sparseseg.learning.training_set import WorkingImage
from napari_sparseseg.learning.validation import NOISE
from napari_sparseseg.networks.encoders import EncoderWeights
from napari_sparseseg.networks.pretrained_features import PretrainedFeatures
from napari_sparseseg.networks.registry import Standardised, build_network
from napari_sparseseg.networks.scoring import EncoderDecoder, ScoringNetwork

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from napari_sparseseg.learning.judge import Scores
    from napari_sparseseg.learning.options import Recipe, TrainingOptions
    from napari_sparseseg.learning.patches import MiniBatch
    from napari_sparseseg.learning.training_set import TrainingSet

Network = TypeVar("Network", bound=ScoringNetwork)

#: After a loss that is no number the learning rate is multiplied by this.
RECOVERY = 0.5

#: Parts of a mini-batch that draw apart from each other, and torch's number of seeds.
MOST_PARTS, MOST_SEEDS = 1000, 2**63


class NetworkTraining:
    """A network that learns at one working resolution, step by step.

    The weights that predict are a running average of the weights that learn, and the
    average is kept as ``best`` whenever its score on held-out strokes is, within its
    noise, the highest so far.

    Parameters
    ----------
    data
        Of which channels and classes are taken.
    images
        All of *data* at *scale*.
    scale
        Working pixels per image pixel.
    options
        Network, recipe, balancing, device.
    generator
        On the CPU; draws patches and augmentations. Shared by the networks of a
        training.
    others, head_bytes
        See :meth:`see`.
    weights
        First ones of the encoder. Default: those of *options*.
    ranks
        The processes that learn it together.
    """

    def __init__(
        self,
        data: TrainingSet,
        images: Sequence[WorkingImage],
        scale: float,
        options: TrainingOptions,
        generator: Generator,
        others: Iterable[WorkingImage] = (),
        head_bytes: int = 0,
        *,
        weights: EncoderWeights | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.scale = scale
        self.options = options
        self.steps = 0
        self.recoveries = 0  # since the last good step
        self.best_scores: Scores = {}
        self.highest = 0.0
        self._wished_batch = options.micro_batch or options.recipe.batch
        self.micro_batch = self._wished_batch
        self._generator = generator
        self._ranks = ranks
        self._share = ranks.share_of(options.recipe.batch)
        self.network = first_network(
            options, data.n_channels, len(data.classes), weights
        )
        self._start_optimiser(options.recipe.learning_rate)
        self._encoder = self._cached_encoder()
        self._features: list[OrientedFeatures] = []
        self.average = copy_beside(self.network)
        self.best = copy_beside(self.network)
        self._good = self._learning_state()
        self.see(images, others, head_bytes)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    @property
    def _full_rate(self) -> float:
        """The learning rate, were the warm-up over, without a polynomial's decay."""
        falls = isinstance(self._schedule, PolynomialLR)
        if falls or self.steps < self._warm_up.total_iters:
            return float(self.optimiser.param_groups[0]["initial_lr"])
        return self.learning_rate

    def end_at(self, steps: int) -> None:
        """Let a schedule that has an end come to it after so many steps in all."""
        end_at(self._schedule, steps)

    def see(
        self,
        images: Sequence[WorkingImage],
        others: Iterable[WorkingImage] = (),
        head_bytes: int = 0,
    ) -> None:
        """Take images and labels as they are now.

        Parameters
        ----------
        images
            All of the training set at this network's resolution.
        others
            Those of the other networks of the training, which share the feature cache.
        head_bytes
            What the head needs of the feature cache.
        """
        device = self.options.device
        self.images = [
            WorkingImage(
                image.pixels.to(device),
                image.learned.to(device),
                image.held_out.to(device),
                image.dense,
            )
            for image in images
        ]
        self._keeps_features = self._encoder is not None and self._ranks.from_first(
            self._fits_into_cache([*self.images, *others], head_bytes)
        )
        self._start_sampler()

    def _start_sampler(self) -> None:
        if self._keeps_features:
            assert self._encoder is not None
            self._sampler: PatchSampler | FeatureSampler = FeatureSampler(
                self.images, self.options, self.network, self._encoder, self._features
            )
            self._features = [*self._sampler.features.values()]
            return
        self._sampler = PatchSampler(self.images, self.options, self.network.stride)

    @property
    def uses_feature_cache(self) -> bool:
        """Whether the decoder alone learns, from features that were computed once."""
        return isinstance(self._sampler, FeatureSampler)

    def _cached_encoder(self) -> CachedEncoder | None:
        """Return the network's encoder if its features may be kept."""
        inner, cache = self.network.network, self.options.feature_cache
        if not isinstance(inner, EncoderDecoder) or not inner.is_frozen:
            return None
        if not cache.wants(self.options.device):
            return None
        return CachedEncoder(inner.encoder, cache.open())

    def _fits_into_cache(self, images: Sequence[WorkingImage], head_bytes: int) -> bool:
        """Tell whether the cache has room; if not, a warning says so."""
        cache = self.options.feature_cache
        what, needed = "a block of an image", bytes_of_block(images, self.network)
        if cache.use == "auto":
            augmentation = self.options.recipe.augmentation
            together = bytes_needed(images, self.network, augmentation) + head_bytes
            if together > needed:
                what, needed = "all images", together
        if needed <= cache.budget_bytes:
            return True
        warnings.warn(
            f"the features of {what} need {needed / MIB:.1f} MiB, more than the "
            f"{cache.budget_bytes / MIB:.1f} MiB that may be kept, so they are "
            "computed anew at each step, which takes longer, and patches have all "
            "augmentation of the recipe again.",
            TrainingWarning,
            stacklevel=2,
        )
        return False

    def step(self) -> float:
        """Learn one mini-batch; return the loss, which may be no number.

        Raises
        ------
        torch.OutOfMemoryError
            When the mini-batch, ``micro_batch`` patches at once, does not fit into
            memory.
        """
        loss = finish(self.gather())
        if math.isfinite(loss):
            self.apply()
        return loss

    def gather(self) -> Parts[None, None, float]:
        """Draw a mini-batch and add up its gradients, ``micro_batch`` patches at once.

        Each of several processes draws it, cuts out its share, and has the gradients
        of the whole in the end.

        Whoever stops in between leaves the weights as they were; only the running
        statistics of a batch normalisation and the random draws are ahead.

        Yields
        ------
        None
            Between two parts.

        Returns
        -------
        float
            The loss, which may be no number.
        """
        with self._ranks.sharing_memory_errors():
            batch = yield from self._draw()
            self.network.train()
            self.optimiser.zero_grad()
        loss = MiniBatchLoss(self.options, batch.labels, batch.inside, self._ranks)
        parts = self._parts(batch.images)
        if loss.is_sum:
            found = yield from self._gather_parts(batch.images, loss, parts)
        elif len(parts) == 1:
            found = self._gather_at_once(batch.images, loss)
        else:
            found = yield from self._gather_whole(batch.images, loss, parts)
        self._add_up_ranks()
        return found

    def _add_up_ranks(self) -> None:
        """Sum gradients over all processes; take the mean of running statistics.

        Batch normalisation itself is by the patches that go through the network at
        once, so by those of one process.
        """
        statistics = [
            each
            for layer in self.network.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.training
            for each in (layer.running_mean, layer.running_var)
            if each is not None
        ]
        gradients = (each.grad for each in self.network.parameters())
        self._ranks.add_up([*(g for g in gradients if g is not None), *statistics])
        for each in statistics:
            each /= self._ranks.count

    def _draw(
        self,
    ) -> Parts[None, None, MiniBatch[Tensor] | MiniBatch[FeaturePatches]]:
        count, sampler = self.options.recipe.batch, self._sampler
        if isinstance(sampler, FeatureSampler) and self.options.micro_batch:
            return (
                yield from sampler.draw_in_parts(count, self._generator, self._share)
            )
        return sampler.draw(count, self._generator, self._share)

    def _gather_parts(
        self,
        images: Tensor | FeaturePatches,
        loss: MiniBatchLoss,
        parts: Sequence[Tensor],
    ) -> Parts[None, None, float]:
        total = 0.0
        with self._ranks.sharing_memory_errors():
            for number, part in enumerate(parts):
                if number:
                    yield
                share = loss(self._score(images[part], number), part)
                share.backward()
                total += float(share.detach())
        return float(self._ranks.sum(torch.tensor(total, dtype=torch.float64)))

    def _gather_at_once(
        self, images: Tensor | FeaturePatches, loss: MiniBatchLoss
    ) -> float:
        with self._ranks.sharing_memory_errors():
            scores = self._score(images, 0)
        whole = loss(scores, slice(None))
        with self._ranks.sharing_memory_errors():
            whole.backward()
        return float(whole.detach())

    def _gather_whole(
        self,
        images: Tensor | FeaturePatches,
        loss: MiniBatchLoss,
        parts: Sequence[Tensor],
    ) -> Parts[None, None, float]:
        """Do the same for a loss that is no sum over patches.

        The scores of all parts are found first, then the gradient by all scores goes
        through the network part by part.
        """
        found = []
        with self._ranks.sharing_memory_errors():
            for number, part in enumerate(parts):
                with torch.no_grad(), statistics_unchanged(self.network):
                    found.append(self._score(images[part], number))
                yield
            scores = torch.cat(found).requires_grad_()
        whole = loss(scores, slice(None))
        with self._ranks.sharing_memory_errors():
            (gradient,) = torch.autograd.grad(whole, scores)
            for number, part in enumerate(parts):
                if number:
                    yield
                self._score(images[part], number).backward(gradient[part])
        return float(whole.detach())

    def _parts(self, images: Tensor | FeaturePatches) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = torch.arange(len(images)).split(self.micro_batch)
        return parts

    def _score(self, patches: Tensor | FeaturePatches, part: int) -> Tensor:
        """Return the scores of a part of a mini-batch, given its number.

        What dropout draws follows from seed, step and part alone; the parts of all
        processes have different numbers.
        """
        part += self._share.start
        seed = (self.options.seed + self.steps * MOST_PARTS + part) % MOST_SEEDS
        with drawing_from(seed, self.options.device):
            if isinstance(patches, FeaturePatches):
                return self._decode(patches)
            scores: Tensor = self.network(
                patches.contiguous(memory_format=torch.channels_last)
            )
        return scores

    def _decode(self, patches: FeaturePatches) -> Tensor:
        inner = self.network.network
        assert isinstance(inner, EncoderDecoder)
        levels = tuple(
            each.contiguous(memory_format=torch.channels_last)
            for each in patches.levels
        )
        return inner.decode(levels, patches.size)

    def apply(self) -> None:
        """Move the weights by the gradients of :meth:`gather`."""
        self.optimiser.step()
        if self.steps < self.options.recipe.warm_up:
            self._warm_up.step()
        end_step(self._schedule)
        self.steps += 1
        self.recoveries = 0
        self._update_average()

    def recover(self) -> None:
        """Go back to the last good weights, with half the learning rate."""
        self.recoveries += 1
        self.network.load_state_dict(self._good, strict=False)
        # The average may have followed the weights to where they went wrong.
        self.average.load_state_dict(self._good, strict=False)
        self._restart_optimiser(self._full_rate * RECOVERY)

    def _start_optimiser(self, learning_rate: float, warm_up: bool = True) -> None:
        recipe = self.options.recipe
        self.optimiser = build_optimiser(self.network, recipe, learning_rate)
        self._schedule = build_schedule(
            self.optimiser,
            recipe.schedule,
            None if recipe.max_epochs is None else recipe.max_epochs * recipe.epoch,
        )
        length = recipe.warm_up if warm_up else 0
        self._warm_up = LinearLR(
            self.optimiser, 1 / max(1, length), total_iters=max(1, length)
        )

    def _restart_optimiser(self, learning_rate: float) -> None:
        """Forget the moments; the schedule goes on from where it is."""
        before = self._schedule
        self._start_optimiser(learning_rate, warm_up=False)
        go_on_from(self._schedule, before)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the weights, faster in the first steps."""
        decay = min(self.options.recipe.averaging, self.steps / (self.steps + 9))
        averaged = self.average.state_dict()
        for name, value in without_frozen(self.network).items():
            if value.is_floating_point():
                averaged[name].lerp_(value, 1 - decay)
            else:
                averaged[name].copy_(value)

    def end_epoch(self, scores: Scores) -> None:
        """Keep the average if it is the best so far, and move the learning rate on.

        Parameters
        ----------
        scores
            On held-out strokes. Where there are none, the newest is best.
        """
        if self.is_best(scores):
            self.best_scores = scores
            self.best.load_state_dict(self.average.state_dict())
            score = scores.get("network")
            if score is not None:
                self.highest = max(self.highest, score.overall)
        state = self._learning_state()
        if all(bool(value.isfinite().all()) for value in state.values()):
            self._good = state
        score = scores.get("network")
        with warnings.catch_warnings():
            # torch warns where the optimiser is newer than the epoch that has ended.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            end_epoch(self._schedule, None if score is None else score.overall)

    def is_best(self, scores: Scores) -> bool:
        """Tell whether the average is the best so far, within the noise of *scores*."""
        score = scores.get("network")
        return score is None or score.overall >= self.highest - NOISE

    def judge_anew(self) -> None:
        """Forget the best scores: the held-out strokes are not what they were."""
        self.best_scores = {}
        self.highest = 0.0

    def use_classes(self, n_classes: int, places: Mapping[int, int]) -> None:
        """Change the classes, keeping what is known of those that stay.

        Parameters
        ----------
        n_classes
            Output channels from now on.
        places
            For each old channel that stays its new number.
        """
        for network in (self.network, self.average, self.best):
            change_classes(network, n_classes, places)
        self._good = self._learning_state()
        self._restart_optimiser(self._full_rate)
        self.judge_anew()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything needed to go on: tensors, and JSON values."""
        tensors = {
            f"{kind}.{name}": value
            for kind, states in (
                ("network", self.network.state_dict()),
                ("average", without_frozen(self.average)),
                ("best", without_frozen(self.best)),
                ("good", self._good),
            )
            for name, value in states.items()
        }
        optimiser = self.optimiser.state_dict()
        for index, moments in optimiser["state"].items():
            tensors |= {
                f"moments.{index}.{k}": v for k, v in moments.items() if v is not None
            }
        values = {
            "scale": self.scale,
            "steps": self.steps,
            "best_scores": {
                name: dataclasses.asdict(score)
                for name, score in self.best_scores.items()
                if score is not None
            },
            "highest": self.highest,
            "reduced": self._reduced(),
            "optimiser": optimiser["param_groups"],
            "schedule": _json_state(self._schedule),
            "warm_up": _json_state(self._warm_up),
        }
        return tensors, values

    def load_state(
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Go on from a state of :meth:`state`."""
        # A frozen encoder is the same in all of them, and was kept once.
        kept = under(tensors, "network")
        frozen = {
            key: kept[key] for key in kept.keys() - without_frozen(self.network).keys()
        }
        for kind, network in (
            ("network", self.network),
            ("average", self.average),
            ("best", self.best),
        ):
            network.load_state_dict(frozen | under(tensors, kind))
        self._encoder = self._cached_encoder()  # its weights may have been others
        self._features = []
        self._start_sampler()
        self._good = {k: v.clone() for k, v in under(tensors, "good").items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under(tensors, "moments").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(
            {"state": moments, "param_groups": values["optimiser"]}
        )
        self._schedule.load_state_dict(dict(values["schedule"]))
        self._warm_up.load_state_dict(dict(values["warm_up"]))
        self.steps = values["steps"]
        self.best_scores = {
            name: score_from_json(score)
            for name, score in values["best_scores"].items()
        }
        self.highest = values["highest"]
        reduced = values["reduced"]
        if reduced is not None and reduced["device"] == self.options.device:
            self.micro_batch = min(reduced["micro_batch"], self._wished_batch)

    def _learning_state(self) -> dict[str, Tensor]:
        """Return a copy of all weights but those of a frozen encoder."""
        return copy.deepcopy(without_frozen(self.network))

    def _reduced(self) -> dict[str, Any] | None:
        """Return what is known of the memory of a device; None: all fitted so far."""
        if self.micro_batch == self._wished_batch:
            return None
        return {"device": self.options.device, "micro_batch": self.micro_batch}


def first_network(
    options: TrainingOptions,
    in_channels: int,
    n_classes: int,
    weights: EncoderWeights | None = None,
) -> Standardised:
    """Return the network of a training with its first weights, which the seed decides.

    Those of its encoder are *weights*, or what *options* say.

    Raises
    ------
    ImageError, OptionError, ModelFileError
        If it cannot be built, or not with these weights of its encoder; or if that is
        to be frozen and there is none.
    """
    # Weights are drawn by torch's global generator, which is the user's.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = build_network(options.network, in_channels, n_classes)
    is_for_head = options.head_features != "fixed" and not isinstance(
        network.network, EncoderDecoder
    )
    weights = weights or EncoderWeights(options.encoder_weights)
    if not weights.are_drawn and not is_for_head:
        network.load_encoder(weights)
    if options.freeze_encoder:
        network.freeze_encoder()
    return network.to(options.device)


def copy_beside(network: Network) -> Network:
    """Return a copy that predicts, and shares the weights of encoders that are frozen.

    Parameters
    ----------
    network
        A :class:`Standardised`, or the head.
    """
    shared = [
        tensor
        for part in network.modules()
        if isinstance(part, PretrainedFeatures)
        or (isinstance(part, EncoderDecoder) and part.is_frozen)
        for tensor in (*part.encoder.parameters(), *part.encoder.buffers())
    ]
    copied = copy.deepcopy(network, {id(each): each for each in shared})
    return copied.eval().requires_grad_(False)


def without_frozen(network: Standardised) -> dict[str, Tensor]:
    """Return the weights of a network without those of a frozen encoder."""
    frozen = tuple(
        f"{name}.encoder."
        for name, part in network.named_modules()
        if isinstance(part, EncoderDecoder) and part.is_frozen
    )
    state = network.state_dict()
    return {key: value for key, value in state.items() if not key.startswith(frozen)}


def build_optimiser(
    network: nn.Module, recipe: Recipe, learning_rate: float
) -> torch.optim.Optimizer:
    """Return the optimiser of all weights that learn, without moments."""
    parameters = [each for each in network.parameters() if each.requires_grad]
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, learning_rate, recipe.momentum, weight_decay=decay
        )
    return torch.optim.Adam(parameters, learning_rate, weight_decay=decay)


@contextmanager
def drawing_from(seed: int, device: str) -> Iterator[None]:
    """Let torch's generator of a device, which is the user's, start at a seed.

    Afterwards it is as before. Those of other devices are not touched.
    """
    place = torch.device(device)
    if place.type == "mps":
        before = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)
        return
    generator = torch.default_generator
    if place.type == "cuda":
        index = torch.cuda.current_device() if place.index is None else place.index
        generator = torch.cuda.default_generators[index]
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


@contextmanager
def statistics_unchanged(network: nn.Module) -> Iterator[None]:
    """Let batch normalisation learn as ever, but leave its running statistics alone."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def change_classes(
    network: Standardised, n_classes: int, places: Mapping[int, int]
) -> None:
    """Give a network another number of output channels, in place.

    Parameters
    ----------
    network
        Whose last layer is the convolution ``classifier``.
    n_classes
        Output channels afterwards.
    places
        For each old channel that stays its new number; new ones start at zero, no
        more likely than any other.
    """
    inner: Any = network.network
    old: nn.Conv2d = inner.classifier
    with torch.random.fork_rng(devices=[]):
        side = old.kernel_size[0]
        new = nn.Conv2d(old.in_channels, n_classes, side, padding=side // 2)
    new.to(old.weight).to(memory_format=torch.channels_last)
    nn.init.zeros_(new.weight)
    assert new.bias is not None and old.bias is not None
    nn.init.zeros_(new.bias)
    with torch.no_grad():
        for before, after in places.items():
            new.weight[after] = old.weight[before]
            new.bias[after] = old.bias[before]
    new.requires_grad_(old.weight.requires_grad)
    inner.classifier = new


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix and a dot, without both."""
    start = f"{prefix}."
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def _json_state(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's state as far as it is JSON.

    A score of minus infinity is not; a new scheduler starts with it anyway.
    """
    return {
        key: value
        for key, value in scheduler.state_dict().items()
        if isinstance(value, (int, float, str, bool, list, type(None)))
        and not (isinstance(value, float) and math.isinf(value))
    }
