"""The user's wishes for a training, and the recipes behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from napari_sparseseg.learning.augmentation import (
    AUGMENTATION_ABDULHAMID,
    AugmentationOptions,
)
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec

if TYPE_CHECKING:
    from napari_sparseseg.learning.balancing import Balancing
    from napari_sparseseg.learning.loss_names import Loss
    from napari_sparseseg.learning.schedules import Schedule
    from napari_sparseseg.networks.network_names import HeadFeatures


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training.

    Attributes
    ----------
    batch
        Patches in a mini-batch.
    patch_px
        Side of a patch in working pixels; images that are smaller get smaller patches.
    optimiser
        ``"adam"`` or ``"sgd"``.
    learning_rate
        At first, but for the warm-up.
    momentum
        Of SGD.
    weight_decay
        Of either; L2.
    warm_up
        Steps over which the learning rate rises to its value.
    schedule
        How it falls afterwards; see :func:`~.schedules.build_schedule`. A polynomial
        falls to 0 at the last step: that of the run, where their number is given, else
        of the last epoch.
    epoch
        Steps between two validations.
    max_epochs
        After so many the training ends by itself; None = never.
    draw
        ``"class"``: a class is drawn, then one of its pixels, so rare classes are seen
        as often as common ones. ``"image"``: an image is drawn, then a labelled pixel.
    averaging
        Decay of the running average of the weights that predicts; 0 = none, the last
        weights predict.
    augmentation
        Ranges of the random changes.
    """

    batch: int = 8
    patch_px: int = 128
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    warm_up: int = 20
    schedule: Schedule = "constant"
    epoch: int = 25
    max_epochs: int | None = None
    draw: Literal["class", "image"] = "class"
    averaging: float = 0.99
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)


RecipeName = Literal["live", "paper", "deeplab", "vgg-fcn"]

RECIPES: dict[RecipeName, Recipe] = {
    "live": Recipe(),
    # Bokhorst 2018, section 3 "Training".
    "paper": Recipe(
        patch_px=384,
        learning_rate=1e-5,
        warm_up=0,
        schedule="plateau",
        epoch=750,
        max_epochs=300,
        draw="image",
        averaging=0.0,
    ),
    # Fan 2022, section 3.3: 3762 images of 512 x 512 pixels, in mini-batches of 6.
    "deeplab": Recipe(
        batch=6,
        patch_px=512,
        optimiser="sgd",
        learning_rate=5e-3,
        weight_decay=1e-4,
        warm_up=0,
        schedule="polynomial",
        epoch=627,
        max_epochs=50,
        draw="image",
        averaging=0.0,
    ),
    # Abdulhamid, sections 4.2 and 6.1: whole images, in three views. The paper has 158,
    # of 1128 x 720 pixels, and does not say how many of them are learned from: here
    # four fifths, each once a view and epoch. It learns for 5 to 10 epochs, or until
    # nothing improves: here, as in every recipe, for all epochs, and what is kept is
    # the best moment on held-out strokes.
    "vgg-fcn": Recipe(
        batch=4,
        patch_px=1128,
        learning_rate=1e-4,
        warm_up=0,
        schedule="exponential",
        epoch=95,
        max_epochs=10,
        draw="image",
        averaging=0.0,
        augmentation=AUGMENTATION_ABDULHAMID,
    ),
}


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What a training does.

    Attributes
    ----------
    balancing
        See :func:`~napari_sparseseg.learning.balancing.weight_map`.
    network
        Name and options of the network.
    recipe
        The numbers.
    recipe_name
        Kept with the model.
    loss
        ``"ce"``, ``"dice"`` or ``"l1l2"``, see :mod:`~.learning.losses`.
    l1_weight, l2_weight
        Of the two norms of ``"l1l2"``, 0 or more. Abdulhamid, section 4.3, names none.
    smoothness
        Times which :func:`~.learning.losses.roughness` is added to the loss, 0 or more.
    encoder_weights
        First weights of the encoders of network and head: ``"none"``: drawn, else see
        :meth:`~napari_sparseseg.networks.scoring.ScoringNetwork.load_encoder`.
    freeze_encoder
        Whether the encoder keeps its first weights and only what is behind it learns.
    scale
        Working pixels per image pixel for head and network; None = found out on
        held-out strokes.
    head_start
        Whether a per-pixel head predicts too, from the start.
    head_features
        What the head looks at: ``"fixed"`` features, or with the name of an encoder its
        early layers as well, with the weights of *encoder_weights*.
    feature_cache
        Whether and where features of a frozen encoder are kept. Of all augmentation
        only mirrorings, quarter turns and tiling are then left.
    dense_share
        Probability that a patch comes from a dense image where there are both kinds
        (Bokhorst 2018 mixes sparse and dense images 4 : 1).
    head
        How the head is fitted.
    seed
        Of every random draw.
    device
        A torch device.
    micro_batch
        Patches that go through the network at once, so that there is a
        :class:`~.events.PartDone` between them, and between the parts of fitting the
        head; None = the whole mini-batch. Gradients are added up, so what is learned
        is the same but for rounding.
    """

    balancing: Balancing = "mini-batch"
    network: NetworkSpec = PRESETS["unet"]["light"]
    recipe: Recipe = RECIPES["live"]
    recipe_name: RecipeName = "live"
    loss: Loss = "ce"
    l1_weight: float = 1.0
    l2_weight: float = 1.0
    smoothness: float = 0.0
    encoder_weights: str = "none"
    freeze_encoder: bool = False
    scale: float | None = None
    head_start: bool = True
    head_features: HeadFeatures = "fixed"
    feature_cache: FeatureCacheOptions = field(default_factory=FeatureCacheOptions)
    dense_share: float = 0.2
    head: HeadOptions = field(default_factory=HeadOptions)
    seed: int = 0
    device: str = "cpu"
    micro_batch: int | None = None

    @property
    def loss_setting(self) -> dict[str, str | float]:
        """What is made small, as it is kept with the model and its checkpoint."""
        return {
            "loss": self.loss,
            "l1_weight": self.l1_weight,
            "l2_weight": self.l2_weight,
            "smoothness": self.smoothness,
        }

    @property
    def network_setting(self) -> dict[str, str | bool | float]:
        """How the network learns, as it is kept with the model and its checkpoint."""
        return {
            "encoder_weights": self.encoder_origin,
            "freeze_encoder": self.freeze_encoder,
            "weight_decay": self.recipe.weight_decay,
        }

    @property
    def encoder_origin(self) -> str:
        """Where the encoder's weights come from, without the name of a file."""
        known = self.encoder_weights in ("none", "imagenet")
        return self.encoder_weights if known else "file"
