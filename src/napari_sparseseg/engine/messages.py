"""What window and engine say to each other: frozen records, sent as JSON.

A message travels as its length in bytes (4 bytes, most significant first) and a JSON
object ``{"protocol": 6, "message": {"kind": ..., ...}}``. Nothing is unpickled;
whatever is not known is refused. Arrays do not travel: messages name ``.npy`` files
that both sides map into memory. Regions are (y0, x0, y1, x1) in image pixels.
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from napari_sparseseg.errors import EngineError
from napari_sparseseg.learning.loss_names import Loss
from napari_sparseseg.networks.network_names import (
    ENCODER_OF,
    BackboneName,
    HeadFeatures,
    NetworkName,
    preset_on,
)
from napari_sparseseg.pseudo_masks.method_names import Method

if TYPE_CHECKING:
    from napari_sparseseg.networks.published_weights import EncoderName

#: Raised whenever messages change; window and engine must agree on it.
PROTOCOL = 6

#: Longer messages are not ours.
LONGEST = 64 * 2**20

Region = tuple[int, int, int, int]
Phase = Literal["idle", "preparing", "running", "paused"]
Shown = Literal["head", "network", "both"]
MaskMethod = Method
Sureness = Literal["confidence", "uncertainty"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainingSettings:
    """What the user asks of a training; the words of ``api.TrainingWishes``.

    Attributes
    ----------
    balance
        Balancing of the loss.
    net
        The network.
    preset
        Its size.
    encoder_weights
        First weights of its encoder, and of that of the head: ``"none"``,
        ``"imagenet"`` or a file.
    freeze_encoder
        Whether the encoder keeps them.
    loss
        What is made small.
    l1, l2
        Of the two parts of ``"l1l2"``.
    smoothness
        Weight of the penalty on differences between neighbours, added to the loss.
    scale
        Working pixels per image pixel.
    window
        (centre, width) of grey intensities; None: percentiles.
    patch_px
        Side of a training patch in working pixels; None: the recipe's.
    head_start
        Whether the per-pixel head predicts too.
    head_features
        What the head looks at: ``"fixed"`` features, or an encoder's as well.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    seed
        Of every random draw.
    dense_share
        Share of the patches that come from dense images where there are both kinds.
    """

    balance: Literal["none", "instance", "mini-batch"] = "mini-batch"
    net: NetworkName = "unet"
    preset: Literal["auto", "light", "paper"] = "auto"
    encoder_weights: str = "none"
    freeze_encoder: bool = False
    loss: Loss = "ce"
    l1: float = 1.0
    l2: float = 1.0
    smoothness: float = 0.0
    scale: float | Literal["auto"] = "auto"
    window: tuple[float, float] | None = None
    patch_px: int | None = None
    head_start: bool = True
    head_features: HeadFeatures = "fixed"
    device: str = "auto"
    seed: int = 0
    dense_share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def encoders(self, device: str) -> tuple[EncoderName, ...]:
        """Return the encoders of network and head on a device, none of them twice.

        Parameters
        ----------
        device
            That of ``device``; what ``"auto"`` stands for must be found out before.
        """
        preset = preset_on(device) if self.preset == "auto" else self.preset
        found = [ENCODER_OF[self.net][preset]] if self.net in ENCODER_OF else []
        if self.head_start and self.head_features != "fixed":
            found.append(self.head_features)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Score:
    """Dice on held-out strokes: the mean, by class value, and the strokes behind it."""

    overall: float
    dice: dict[int, float]
    strokes: dict[int, int]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CrfSettings:
    """The parameters of the dense CRF, those of ``pseudo_masks.crf.CrfOptions``."""

    theta_alpha: float | None = None
    theta_beta: float = 3.0
    theta_gamma: float = 1.0
    w1: float = 4.0
    w2: float = 3.0
    iterations: int = 5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MaskSettings:
    """How boxes become masks; the words of ``pseudo_masks.api.PseudoMaskWishes``.

    Attributes
    ----------
    method
        See ``pseudo_masks.method_names.Method``.
    crf
        Whether a dense CRF refines the maps; None = as the method has it.
    crf_options
        Its parameters.
    background
        Class value of what lies outside of all boxes; 0 = ignored.
    window
        (centre, width) of grey intensities; None: percentiles.
    backbone
        Of ``cam`` and ``acol``; None: that of the device.
    weights
        Of the backbone: ``"none"``, ``"imagenet"`` or a file.
    epochs
        None: as the method has it.
    seconds
        Longest time of training; None: until all epochs are over.
    seed
        Of every random draw.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    method: MaskMethod = "acol"
    crf: bool | None = None
    crf_options: CrfSettings = field(default_factory=CrfSettings)
    background: int = 0
    window: tuple[float, float] | None = None
    backbone: BackboneName | None = None
    weights: str = "none"
    epochs: int | None = None
    seconds: float | None = None
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DrawnBox:
    """A box of the window.

    Attributes
    ----------
    id
        By which the window knows it, unique in its image.
    box
        As ``annotations.boxes.boxes_to_json`` has it, without a plane.
    """

    id: int
    box: dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BoxedImage:
    """An image of one plane and boxes on it.

    Attributes
    ----------
    name
        By which it is known; another one for each plane of a volume.
    pixels
        File of (y, x) or (y, x, c); its content never changes.
    boxes
        Those whose masks are to be made.
    """

    name: str
    pixels: str
    boxes: list[DrawnBox]


# Requests: what the window asks.


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PutImage:
    """Take an image into the training, or its strokes of now.

    Attributes
    ----------
    name
        By which it is known; an image of the same name is replaced.
    pixels
        File of (y, x) or (y, x, c); its content never changes.
    labels
        File of (y, x) uint8 or uint16, 0 = not annotated; copied at once.
    um_per_px
        Pixel size, None when unknown.
    dense
        Whether regions of it are labelled completely.
    """

    kind: Literal["put-image"] = "put-image"
    name: str
    pixels: str
    labels: str
    um_per_px: float | None = None
    dense: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RemoveImage:
    """Take an image out of the training."""

    kind: Literal["remove-image"] = "remove-image"
    name: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UseClasses:
    """Use this class table, as of ``ClassTable.to_json``."""

    kind: Literal["use-classes"] = "use-classes"
    classes: dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Start:
    """Start a training on the images put so far, or go on with one.

    Attributes
    ----------
    settings
        What is asked for.
    checkpoint
        File in which the state of the training is kept.
    resume
        Go on from that file where it exists.
    """

    kind: Literal["start"] = "start"
    settings: TrainingSettings
    checkpoint: str
    resume: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Pause:
    """Do not learn for a while."""

    kind: Literal["pause"] = "pause"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Continue:
    """Learn on after a pause."""

    kind: Literal["continue"] = "continue"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Stop:
    """End the training; its checkpoint is written and its best model predicts on."""

    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Predict:
    """Predict an image with the best model so far; takes the place of an earlier one.

    Attributes
    ----------
    generation
        Number of the request, given back with every tile.
    pixels
        File of (y, x) or (y, x, c).
    labels
        File of (y, x) uint8 or uint16 that the class values are written to.
    confidence
        File of (y, x) float32 for the largest class probability, or None.
    region
        What is to be predicted; None = all.
    view
        What is seen: its tiles come first, from its centre.
    in_background
        Whether it takes but a small share of the time while something is learned; else
        learning waits for the tiles of the view.
    um_per_px
        Pixel size, None when unknown.
    sureness
        What is written to *confidence*: the largest class probability, or the entropy
        of all, 0..1, as ``prediction.uncertainty.entropy`` has it.
    smallest_object
        Objects of fewer pixels go to what surrounds them when all is predicted, and all
        is told once more by a `TileDone`; 0: none.
    """

    kind: Literal["predict"] = "predict"
    generation: int
    pixels: str
    labels: str
    confidence: str | None = None
    region: Region | None = None
    view: Region | None = None
    in_background: bool = False
    um_per_px: float | None = None
    sureness: Sureness = "confidence"
    smallest_object: int = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CancelPrediction:
    """Give the prediction up."""

    kind: Literal["cancel-prediction"] = "cancel-prediction"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FileJob:
    """An image in a file, and where its labels go, as of ``many_files.ImageJob``."""

    image: str
    out: str
    series: str | None = None
    um_per_px: float | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FolderJob:
    """Images in a folder, and theirs, as of ``many_files.jobs_of_folder``."""

    images: str
    out: str
    suffix: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictFiles:
    """Predict images from file to file; takes the place of an earlier one.

    Attributes
    ----------
    generation
        Number of the request, given back with every answer.
    job
        One image, or all of a folder, one after the other.
    tissue_mask, smooth_planes, smallest_object
        As of ``files.PredictionWishes``.
    """

    kind: Literal["predict-files"] = "predict-files"
    generation: int
    job: FileJob | FolderJob
    tissue_mask: bool | None = None
    smooth_planes: float = 0.0
    smallest_object: int = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CancelFiles:
    """Predict no more files; the same request goes on later where this one ended."""

    kind: Literal["cancel-files"] = "cancel-files"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MakeMasks:
    """Make the masks of boxes; takes the place of an earlier one, which is cancelled.

    Attributes
    ----------
    images
        With their boxes.
    settings
        Method and parameters.
    folder
        Exists; for the results of this request alone.
    reuse
        Use the network that was mined last, or the localisation maps where those of
        all boxes are there, if they were made with the same settings (but for CRF and
        background, unless the method learns in rounds); if not, learn from these boxes
        alone.
    """

    kind: Literal["make-masks"] = "make-masks"
    images: list[BoxedImage]
    settings: MaskSettings
    folder: str
    reuse: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CancelMasks:
    """Give the masks up; those that were told of stay."""

    kind: Literal["cancel-masks"] = "cancel-masks"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RefineBox:
    """Make the mask of one box anew from its localisation map; nothing is kept of it.

    It takes the place of an earlier one that is not answered yet.

    Attributes
    ----------
    generation
        Number of the request, given back with the answer.
    name, id
        Of the image and the box, whose mask was told of by a `BoxMasked`.
    crf, crf_options
        As of `MaskSettings`; its other settings are those the mask was made with.
    mask
        File to be written, its name ending in ``.npy``.
    """

    kind: Literal["refine-box"] = "refine-box"
    generation: int
    name: str
    id: int
    crf: bool | None = None
    crf_options: CrfSettings = field(default_factory=CrfSettings)
    mask: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ForgetMasks:
    """Keep nothing more of boxes that are gone; a `RefineBox` of them is refused then.

    Attributes
    ----------
    ids
        Of the boxes, by the name of their image; some may not be known.
    """

    kind: Literal["forget-masks"] = "forget-masks"
    ids: dict[str, list[int]]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SaveModel:
    """Write the best model so far."""

    kind: Literal["save-model"] = "save-model"
    path: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CopyModel:
    """Write the best model so far for another engine; it does not count as saved."""

    kind: Literal["copy-model"] = "copy-model"
    path: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoadModel:
    """Predict with the model of a file from now on."""

    kind: Literal["load-model"] = "load-model"
    path: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Shutdown:
    """End; a running training leaves its checkpoint."""

    kind: Literal["shutdown"] = "shutdown"


Request = Annotated[
    PutImage
    | RemoveImage
    | UseClasses
    | Start
    | Pause
    | Continue
    | Stop
    | Predict
    | CancelPrediction
    | PredictFiles
    | CancelFiles
    | MakeMasks
    | CancelMasks
    | RefineBox
    | ForgetMasks
    | SaveModel
    | CopyModel
    | LoadModel
    | Shutdown,
    Discriminator("kind"),
]


# Events: what the engine tells.


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Starting:
    """The engine imports *module*, the first of those that `Ready` still waits for."""

    kind: Literal["starting"] = "starting"
    module: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Ready:
    """The engine stands, with all that is slow to import.

    Attributes
    ----------
    versions
        Of this project, torch and Python.
    devices
        Those that can be chosen, the best first.
    device_names
        What they are, in words.
    """

    kind: Literal["ready"] = "ready"
    versions: dict[str, str]
    devices: list[str]
    device_names: list[str]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Alive:
    """Nothing to tell, but the engine is there."""

    kind: Literal["alive"] = "alive"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PhaseChanged:
    """The training is in another phase."""

    kind: Literal["phase"] = "phase"
    phase: Phase
    step: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class HeadFitted:
    """The per-pixel head knows the strokes of now.

    Attributes
    ----------
    scale
        Working pixels per image pixel.
    score
        None as long as it is not scored, or cannot be.
    is_new
        Whether it predicts otherwise than the head that was told before.
    """

    kind: Literal["head-fitted"] = "head-fitted"
    scale: float
    score: Score | None
    is_new: bool = True


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StepDone:
    """Mini-batches were learned; not each is told."""

    kind: Literal["step"] = "step"
    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Validated:
    """Head and network were scored on held-out strokes; *shown* predicts from now.

    Attributes
    ----------
    step
        Steps so far.
    scores
        Of head, network and the mean of both, as far as they can be scored.
    shown
        What predicts.
    reason
        Why, in plain words.
    images
        Mean Dice of what predicts by the name of the image, of those on which something
        is held out and was looked at.
    """

    kind: Literal["validated"] = "validated"
    step: int
    scores: dict[Shown, Score | None]
    shown: Shown
    reason: str
    images: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScaleChosen:
    """The network's working resolution was decided."""

    kind: Literal["scale-chosen"] = "scale-chosen"
    step: int
    scale: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Recovered:
    """The loss was no number; training went back to the last good weights."""

    kind: Literal["recovered"] = "recovered"
    step: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MemorySaved:
    """Memory did not suffice; mini-batches go through in smaller parts."""

    kind: Literal["memory-saved"] = "memory-saved"
    step: int
    micro_batch: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class WentToCpu:
    """The memory of the device did not suffice; the CPU learns on."""

    kind: Literal["went-to-cpu"] = "went-to-cpu"
    step: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Warned:
    """Something is learned otherwise than asked; *message* is one sentence."""

    kind: Literal["warned"] = "warned"
    message: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CheckpointWritten:
    """The state of the training is on disk."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TileDone:
    """A part of a prediction is in its file."""

    kind: Literal["tile"] = "tile"
    generation: int
    region: Region
    share: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Predicted:
    """A prediction is complete."""

    kind: Literal["predicted"] = "predicted"
    generation: int
    shown: Shown
    step: int
    seconds: float


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FileProgress:
    """So much of an image in a file is predicted.

    Attributes
    ----------
    name
        Of the image.
    place, n_images
        Which of how many images.
    done, total
        Chunks of the image.
    px_per_s
        Speed of now, None before the first chunk.
    left_s
        Seconds that the rest of the image takes; None where that is not known.
    """

    kind: Literal["file-progress"] = "file-progress"
    generation: int
    name: str
    place: int
    n_images: int
    done: int
    total: int
    px_per_s: float | None = None
    left_s: float | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FileDone:
    """An image in a file is predicted, or cannot be.

    Attributes
    ----------
    name
        Of the image.
    place, n_images
        Which of how many images.
    paths
        What was written.
    notes
        Sentences that the user should know.
    failure
        Why nothing was written, in one sentence; empty where it was.
    """

    kind: Literal["file-done"] = "file-done"
    generation: int
    name: str
    place: int
    n_images: int
    paths: list[str]
    notes: list[str]
    failure: str = ""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FilesDone:
    """No more answers come to a `PredictFiles`: all is done, or it was cancelled."""

    kind: Literal["files-done"] = "files-done"
    generation: int


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MasksStarted:
    """Masks will be made of so many boxes.

    Attributes
    ----------
    boxes
        Without those that no mask can be made of.
    notes
        Sentences on images and boxes that are not taken as they were given.
    """

    kind: Literal["masks-started"] = "masks-started"
    boxes: int
    notes: list[str]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MasksProgress:
    """So much is done; not each step is told.

    Attributes
    ----------
    what
        Learning comes before masks, where there is something to learn.
    done, total
        Mini-batches or boxes. A limit of time may end learning before all are done.
    loss_a, loss_b
        Of learning: those of the classifiers A and B, or of the network alone.
    """

    kind: Literal["masks-progress"] = "masks-progress"
    what: Literal["learning", "masks"]
    done: int
    total: int
    loss_a: float | None = None
    loss_b: float | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BoxMasked:
    """The mask of a box is in its files.

    Attributes
    ----------
    name, id
        Of the image and the box.
    box
        (y0, x0, y1, x1): the box as it was given, clipped to the image.
    mask
        File of (h, w) uint8, the size of *box*: 1 foreground, 0 background, 2 neither.
        ``merge_masks(..., background_inside=True)`` puts them together as the method
        has it.
    localization
        File of (h, w) float32 in [0, 1].
    """

    kind: Literal["box-masked"] = "box-masked"
    name: str
    id: int
    box: Region
    mask: str
    localization: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BoxRefined:
    """The answer to `RefineBox` is in its file, which is that of a `BoxMasked`."""

    kind: Literal["box-refined"] = "box-refined"
    generation: int
    name: str
    id: int
    mask: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MasksDone:
    """All masks are made.

    Attributes
    ----------
    boxes
        How many.
    seconds
        Since the request.
    notes
        As of `MasksStarted`: those that came up since.
    """

    kind: Literal["masks-done"] = "masks-done"
    boxes: int
    seconds: float
    notes: list[str]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MasksCancelled:
    """No more masks come of the last request."""

    kind: Literal["masks-cancelled"] = "masks-cancelled"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelSaved:
    """The model is in its file."""

    kind: Literal["model-saved"] = "model-saved"
    path: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelCopied:
    """The answer to `CopyModel`: the model is in its file."""

    kind: Literal["model-copied"] = "model-copied"
    path: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelLoaded:
    """A model predicts; what is known about it."""

    kind: Literal["model-loaded"] = "model-loaded"
    path: str
    network: str
    classes: dict[str, Any]
    in_channels: int
    shown: Shown
    um_per_px: float | None
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Failed:
    """A request or the training failed; what was there before is still there.

    Attributes
    ----------
    request
        Kind of the request; ``"training"`` while learning on. After ``"make-masks"``
        no more masks come.
    message
        One sentence for the user.
    error
        Name of the class of the error.
    details
        Where and of which type the error was, for the log file: of
        :func:`~.log.trace_of`. Empty where the user gave something unusable.
    generation
        Number of the request, where it was one to predict.
    """

    kind: Literal["failed"] = "failed"
    request: str
    message: str
    error: str = ""
    details: str = ""
    generation: int | None = None


Event = Annotated[
    Starting
    | Ready
    | Alive
    | PhaseChanged
    | HeadFitted
    | StepDone
    | Validated
    | ScaleChosen
    | Recovered
    | MemorySaved
    | WentToCpu
    | Warned
    | CheckpointWritten
    | TileDone
    | Predicted
    | FileProgress
    | FileDone
    | FilesDone
    | MasksStarted
    | MasksProgress
    | BoxMasked
    | BoxRefined
    | MasksDone
    | MasksCancelled
    | ModelSaved
    | ModelCopied
    | ModelLoaded
    | Failed,
    Discriminator("kind"),
]

REQUESTS: TypeAdapter[Any] = TypeAdapter(Request)
EVENTS: TypeAdapter[Any] = TypeAdapter(Event)


def write_message(stream: IO[bytes], message: Any, kinds: TypeAdapter[Any]) -> None:
    """Write a message of *kinds* (``REQUESTS`` or ``EVENTS``) and flush.

    Raises
    ------
    OSError
        If the other side is gone.
    """
    body = json.dumps(
        {"protocol": PROTOCOL, "message": kinds.dump_python(message, mode="json")}
    ).encode()
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def read_message(stream: IO[bytes], kinds: TypeAdapter[Any]) -> Any:
    """Return the next message of *kinds*, None when the other side has closed.

    Raises
    ------
    EngineError
        If it is not of these kinds, of another protocol, or cut.
    """
    start = _read_exactly(stream, 4)
    if start is None:
        return None
    length = int.from_bytes(start, "big")
    if length > LONGEST:
        raise EngineError(
            f"a message of {length} bytes arrived, but none is longer than {LONGEST}; "
            "something else writes to the standard output of the engine.",
            length=length,
        )
    body = _read_exactly(stream, length)
    if body is None:
        raise EngineError("a message was cut; the other side has ended.")
    try:
        envelope = json.loads(body)
        if set(envelope) != {"protocol", "message"}:
            raise EngineError(f"a message has the entries {sorted(envelope)}.")
        if envelope["protocol"] != PROTOCOL:
            raise EngineError(
                f"the other side speaks protocol {envelope['protocol']}, this one "
                f"{PROTOCOL}; both must be of the same version.",
                given=envelope["protocol"],
                expected=PROTOCOL,
            )
        return kinds.validate_python(envelope["message"])
    except (ValueError, TypeError, ValidationError) as error:
        raise EngineError(f"a message could not be understood: {error}") from error


def _read_exactly(stream: IO[bytes], length: int) -> bytes | None:
    """Return so many bytes, None if the stream ends before."""
    parts = []
    while length > 0:
        part = stream.read(length)
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
