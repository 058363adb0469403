"""The command ``sparseseg``: parses, calls the Python functions, tells what happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from napari_sparseseg.display import has_display, missing_parts
from napari_sparseseg.errors import (
    EngineError,
    ImageError,
    OptionError,
    OutputError,
    SparseSegError,
)
from napari_sparseseg.networks.network_names import ENCODER_OF, WHEN_TO_CHOOSE
from napari_sparseseg.networks.published_weights import PUBLISHED, fetch_in_parts

if TYPE_CHECKING:
    from napari_sparseseg.conversion import Converted
    from napari_sparseseg.io.class_sizes import ClassSize
    from napari_sparseseg.learning.distributed import Ranks
    from napari_sparseseg.learning.options import TrainingOptions
    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.networks.published_weights import EncoderName
    from napari_sparseseg.pseudo_masks.api import PseudoMasks

#: Exit codes: some inputs failed, the others done; bad input or usage; interrupted.
SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

MIB = 2**20

DEMO_FOLDER, DEMO_SECONDS = Path("sparseseg-demo"), 60

app = typer.Typer(
    name="sparseseg",
    help="Segment images from a few brush strokes: train, predict, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the results as JSON; - = standard output."),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps")]
Series = Annotated[
    str | None,
    typer.Option(help="Which of several images: number, name, or UID or its end."),
]
Values = Annotated[
    str | None,
    typer.Option(
        metavar="0=1,1=2,...",
        help="Class value of each value of the file, where 0 is a class there.",
    ),
]
Classes = Annotated[
    Path | None, typer.Option(help="Class table (JSON); default: beside LABELS.")
]
Seed = Annotated[int, typer.Option(help="Of every random draw.")]
Window = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="CENTRE WIDTH", help="Intensity window, as for CT in HU."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that is there.")
]

LABEL_SUFFIXES = ".png .tif .ome.tif .nii.gz .nrrd .ome.zarr .geojson .dcm .csv"


class Talk:
    """Tells a person what happens: a progress bar on a terminal, lines in a pipe.

    With ``--json -`` standard output belongs to the JSON, and people read standard
    error.
    """

    def __init__(self, json_path: Path | None, *, silent: bool = False) -> None:
        self.json_path = None if silent else json_path
        self.console = Console(
            stderr=json_path == Path("-"), highlight=False, quiet=silent
        )

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self.console.print(sentence, markup=False, soft_wrap=True)

    def result(self, content: dict[str, Any]) -> None:
        """Write the result where ``--json`` asks for it."""
        if self.json_path is None:
            return
        text = json.dumps(content, indent=1)
        if self.json_path == Path("-"):
            print(text)
            return
        if self.json_path.exists() and not self.json_path.is_file():
            # A pipe or a device, such as /dev/stdout, cannot be replaced.
            self.json_path.write_text(text + "\n", encoding="utf-8")
            return
        from napari_sparseseg.io.atomic import write_atomically

        def write(path: Path) -> None:
            path.write_text(text + "\n", encoding="utf-8")

        write_atomically(self.json_path, write)

    @contextmanager
    def progress(self, total: float) -> Iterator[Callable[[float, str], None]]:
        """Show a bar on a terminal; the function yielded moves it and names the state.

        In a pipe only states that are new are printed, one line each.
        """
        if not self.console.is_terminal:
            last = [""]

            def line(_done: float, state: str) -> None:
                if state != last[0]:
                    self.say(state)
                    last[0] = state

            yield line
            return
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("", total=total)

            def move(done: float, state: str) -> None:
                bar.update(task, completed=done, description=state)

            yield move


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help=f"Folder of the results; default: {DEMO_FOLDER}."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help=f"Learning time for each sample; default: {DEMO_SECONDS}."),
    ] = None,
    json_path: Json = None,
) -> None:
    """Open a sample in napari or, without a display, learn samples and write results.

    With an option it never opens a window: it learns two samples from their strokes
    and writes labels, pictures, models and scores; without a display, pictures of the
    window as well.
    """
    wishes = (out, seconds, json_path)
    if all(wish is None for wish in wishes) and has_display() and not missing_parts():
        open_window()
        return
    out = out or DEMO_FOLDER
    learn_samples(out, DEMO_SECONDS if seconds is None else seconds, Talk(json_path))


def learn_samples(out: Path, seconds: float, talk: Talk) -> None:
    """Learn two sample images from their strokes; write labels, pictures, scores."""
    from napari_sparseseg.api import check_limits
    from napari_sparseseg.demo import SampleDone, iter_demo

    check_limits(None, seconds)
    scores: dict[str, Any] = {}
    clock = Clock()
    with talk.progress(seconds) as show:
        for event in iter_demo(out, seconds):
            if isinstance(event, SampleDone):
                talk.say(f"{event.name}: {event.picture}")
                scores |= event.scores
                clock = Clock()
            else:
                clock.take(event)
                show(clock.seconds, clock.state)
    for name, each in scores.items():
        talk.console.print(score_table(name, each.to_json()))
    talk.say(f"labels, pictures, models and scores are in {out}")
    talk.result({name: each.to_json() for name, each in scores.items()})
    if not has_display():
        photograph_window(out, talk)


def photograph_window(out: Path, talk: Talk) -> None:
    """Leave pictures of the window where that is possible, else say why it is not."""
    from napari_sparseseg import demo

    if missing_parts():
        talk.say(f"no pictures of the window: {needs_parts()}")
        return
    talk.say("now the same in the window, on a display of its own")
    try:
        for picture in demo.photograph_window(out):
            talk.say(f"window: {picture}")
    except OptionError as error:
        talk.say(f"no pictures of the window: {error}")
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(SOME_FAILED) from error


@app.command("open")
def open_window(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Images to open; none = the sample.")
    ] = None,
) -> None:
    """Open napari with the dock "Label and train"."""
    for path in files or []:
        if not path.exists():
            raise ImageError(f"{path} is not there; name files or folders of images.")
    check_window()
    import napari

    from napari_sparseseg.gui.launch import open_window

    viewer = open_window(files or [], sample=None if files else "tissue_phantom")
    viewer.window.activate()
    napari.run()


def needs_parts() -> str:
    """Say what to install for windows."""
    return (
        f"windows need {' and '.join(missing_parts())}, which is not installed; "
        "install it with: pip install 'napari-sparseseg[gui]'"
    )


def check_window() -> None:
    """Raise OptionError where no window can be opened."""
    if missing_parts():
        raise OptionError(needs_parts())
    if not has_display():
        raise OptionError(
            "there is no display (DISPLAY and WAYLAND_DISPLAY are not set); use the "
            "other commands, or run this one under xvfb-run."
        )


@app.command()
def train(
    images: Annotated[Path, typer.Argument(help="Image or folder of images.")],
    labels: Annotated[
        Path, typer.Argument(help="Label map or folder of them; 0 = not annotated.")
    ],
    model: Annotated[Path, typer.Option(help="Model file to write (.safetensors).")],
    classes: Classes = None,
    balance: Annotated[
        str | None,
        typer.Option(
            metavar="none|instance|mini-batch",
            help="Default: mini-batch; instance when there are dense images; none for "
            "the dice loss.",
        ),
    ] = None,
    net: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Kind of the network: {', '.join(WHEN_TO_CHOOSE)}. When to choose "
            "which stands in the README; unet is the choice for a CPU.",
        ),
    ] = "unet",
    preset: Annotated[
        str, typer.Option(metavar="auto|light|paper", help="Size of the network.")
    ] = "auto",
    encoder_weights: Annotated[
        str,
        typer.Option(
            metavar="none|imagenet|FILE",
            help="First weights of the encoder, which all networks but unet have.",
        ),
    ] = "none",
    freeze_encoder: Annotated[
        bool,
        typer.Option(
            "--freeze-encoder", help="Keep its first weights; learn what is behind it."
        ),
    ] = False,
    dropout: Annotated[
        float,
        typer.Option(
            help="Share of features left out while learning, of the unets with an "
            "encoder and vgg-fcn."
        ),
    ] = 0.0,
    weight_decay: Annotated[
        float | None, typer.Option(help="L2 regularisation; default: the recipe's.")
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            metavar="ce|dice|l1l2",
            help="What is made small; dice leaves out the class with the smallest "
            "value, the background.",
        ),
    ] = "ce",
    l1: Annotated[float, typer.Option(help="Weight of the L1 norm in l1l2.")] = 1.0,
    l2: Annotated[float, typer.Option(help="Weight of the L2 norm in l1l2.")] = 1.0,
    smoothness: Annotated[
        float,
        typer.Option(
            help="Weight of a penalty on neighbouring pixels that differ: some 0.1 to "
            "1, with l1l2 about a hundred times as much."
        ),
    ] = 0.0,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="live|paper|deeplab|vgg-fcn", help="Numbers of the training."
        ),
    ] = "live",
    scale: Annotated[
        str,
        typer.Option(metavar="auto|S", help="Working pixels per image pixel."),
    ] = "auto",
    um_per_px: Annotated[
        float | None, typer.Option(help="Working resolution, instead of --scale.")
    ] = None,
    window: Window = None,
    noise: Annotated[
        float | None,
        typer.Option(
            help="Most Gaussian noise on training patches, a standard deviation where "
            "intensities are 0 to 1; default: the recipe's."
        ),
    ] = None,
    tiling: Annotated[
        str | None,
        typer.Option(
            metavar="on|off",
            help="Learn from tiles of a regular grid, not from patches anywhere; "
            "default: the recipe's.",
        ),
    ] = None,
    head_start: Annotated[
        str,
        typer.Option(
            metavar="on|off",
            help="Predict by a per-pixel head as well, from the start.",
        ),
    ] = "on",
    head_features: Annotated[
        str,
        typer.Option(
            metavar="fixed|resnet18|resnet50|vgg16",
            help="What it sees: with an encoder's name, its early layers too.",
        ),
    ] = "fixed",
    feature_cache: Annotated[
        str,
        typer.Option(
            metavar="auto|on|off",
            help="Keep features of a frozen encoder on disk; images are then mirrored "
            "and turned, not changed otherwise. auto: on a CPU, if all fit.",
        ),
    ] = "auto",
    feature_cache_folder: Annotated[
        Path | None, typer.Option(help="Where; default: the user's folder of caches.")
    ] = None,
    feature_cache_gib: Annotated[
        float, typer.Option(help="Most that folder may take; the oldest goes first.")
    ] = 10.0,
    dense_images: Annotated[
        Path | None, typer.Option(help="Images labelled completely.")
    ] = None,
    dense_labels: Annotated[Path | None, typer.Option(help="Their label maps.")] = None,
    dense_share: Annotated[
        float, typer.Option(help="Share of the patches that come from dense images.")
    ] = 0.2,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Mini-batches to learn (more): the same command, the same model."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time to learn; cannot give the same model twice."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of the model.")
    ] = False,
    json_path: Json = None,
) -> None:
    """Learn from sparse label maps; a checkpoint beside the model allows to go on.

    Several processes learn together if torchrun starts them: see docs/scaling.md.
    """
    from napari_sparseseg.api import (
        DEFAULT_SECONDS,
        check_limits,
        choose_device,
        encoders_to_fetch,
    )
    from napari_sparseseg.folders import trainer_of_folders
    from napari_sparseseg.learning.distributed import joined

    if steps is None and seconds is None:
        seconds = DEFAULT_SECONDS
    name = model.name.removesuffix(".safetensors")
    checkpoint = model.with_name(f"{name}.checkpoint.safetensors")
    # The words of the user go in as they are: what they may be is checked there.
    wishes: Any = {
        "balance": balance,
        "net": net,
        "preset": preset,
        "encoder_weights": encoder_weights,
        "freeze_encoder": freeze_encoder,
        "dropout": dropout,
        "weight_decay": weight_decay,
        "loss": loss,
        "l1": l1,
        "l2": l2,
        "smoothness": smoothness,
        "recipe": recipe,
        "scale": number_or_auto(scale),
        "um_per_px": um_per_px,
        "window": window,
        "noise": noise,
        "tiling": None if tiling is None else on_or_off("the tiling", tiling),
        "head_start": on_or_off("the head start", head_start),
        "head_features": head_features,
        "feature_cache": feature_cache,
        "feature_cache_folder": feature_cache_folder,
        "feature_cache_gib": feature_cache_gib,
        "dense_share": dense_share,
        "seed": seed,
        "device": device,
        "checkpoint": checkpoint,
        "resume": resume,
    }
    with joined(choose_device(device)) as ranks, speaking_once(ranks):
        talk = Talk(json_path, silent=not ranks.is_first)
        with ranks.failing_together():
            check_limits(steps, seconds)
            if ranks.is_first:
                check_place(model)
                if not resume:
                    check_place(checkpoint)
            if ranks.is_first_of_host:
                fetch(talk, encoders_to_fetch(wishes))
        with ranks.failing_together():
            trainer, inputs = trainer_of_folders(
                images, labels, dense_images, dense_labels, classes, wishes, ranks
            )
        notes = [*inputs.notes, *notes_on(trainer.options, resumes=resume)]
        for sentence in (*notes, *inputs.failures):
            talk.say(sentence)
        with interrupts() as interrupted:
            ended_by = learn(talk, trainer, steps, seconds, checkpoint, interrupted)
            if ended_by is not None and trainer.head is None and trainer.steps == 0:
                talk.say("stopped before anything was learned; no model is written")
                raise ended_by
            if ranks.is_first:
                write_model(talk, trainer, model, notes, inputs.failures)
        if isinstance(ended_by, SparseSegError):
            raise ended_by
        ranks.wait()  # whoever ends with an exit code ends the others
        if ended_by is not None:
            talk.say(
                f"stopped after {trainer.steps} steps; go on with the same command and "
                f"--resume, from the checkpoint {checkpoint}"
            )
            raise typer.Exit(INTERRUPTED)
        if inputs.failures:
            raise typer.Exit(SOME_FAILED)


def write_model(
    talk: Talk, trainer: Trainer, path: Path, notes: list[str], failures: list[str]
) -> None:
    """Write the model of a training, and tell about it."""
    from napari_sparseseg.api import save_model

    trained = trainer.model()
    save_model(trained.to("cpu"), path)
    report = describe(trained)
    talk.console.print(model_table(report))
    talk.say(f"saved: {path}")
    talk.result(report | {"notes": notes, "failures": failures})


@contextmanager
def speaking_once(ranks: Ranks) -> Iterator[None]:
    """Let only the first of several processes tell of what all of them know."""
    from napari_sparseseg.learning.distributed import ProcessLostError

    if ranks.is_first:
        yield
        return
    warnings.simplefilter("ignore")
    try:
        yield
    except ProcessLostError:
        raise
    except SparseSegError as error:
        raise typer.Exit(BAD_INPUT) from error


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    images: Annotated[
        Path,
        typer.Argument(
            help="Image of any kind, slide, volume, DICOM folder, or folder of images."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File of the labels, whose suffix chooses the format (.ome.zarr, "
            ".ome.tif, .tif, .png, .nii.gz, .nrrd, .dcm, .geojson), or a folder for "
            "the label maps of a folder of images."
        ),
    ],
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Write class probabilities to OUT/probabilities."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that are no predictions too."),
    ] = False,
    series: Series = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Pixel size; default: what the file says.")
    ] = None,
    tissue_mask: Annotated[
        bool | None,
        typer.Option(
            "--tissue-mask/--no-tissue-mask",
            help="Leave out the glass of slides; default: in colour images with a "
            "pixel size or several levels.",
        ),
    ] = None,
    glass: Annotated[
        str,
        typer.Option(metavar="CLASS|0", help="Class of what is left out; 0 = none."),
    ] = "0",
    smooth_planes: Annotated[
        float,
        typer.Option(
            metavar="SIGMA",
            help="Average class probabilities across planes of a volume, by a Gaussian "
            "of so many planes.",
        ),
    ] = 0.0,
    smallest_object: Annotated[
        int,
        typer.Option(
            metavar="PX",
            help="Objects of fewer pixels of the labels go to what surrounds them.",
        ),
    ] = 0,
    tile: Annotated[
        int | None,
        typer.Option(help="Side of a tile in working pixels; smaller takes less room."),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="SUFFIX",
            help="Of a folder of images of any kind: write each in this format, such "
            "as .nii.gz; what is there already is left.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes of this machine that predict.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Predict on the dask cluster of this scheduler."
        ),
    ] = None,
    tls: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(metavar="CA CERT KEY", help="PEM files for a scheduler with TLS."),
    ] = None,
    device: Device = "auto",
    json_path: Json = None,
) -> None:
    """Label every pixel of an image of any size, or of a folder of images."""
    from napari_sparseseg.files import is_file_format
    from napari_sparseseg.io.model_file import load_model

    # The words of the user go in as they are: what they may be is checked there.
    wishes: Any = {
        "series": series,
        "um_per_px": um_per_px,
        "tissue_mask": tissue_mask,
        "glass": glass,
        "smooth_planes": smooth_planes,
        "smallest_object": smallest_object,
        "workers": workers,
        "scheduler": scheduler,
    }
    talk = Talk(json_path)
    if is_file_format(out) or suffix is not None:
        if probabilities:
            raise OptionError(
                "class probabilities are written for folders of images alone, beside "
                "PNGs; give a folder with --out and no --format, or leave "
                "--probabilities out."
            )
        wishes |= {"device": device, "overwrite": overwrite}
        wishes |= {} if tile is None else {"tile": tile}
        if tls is not None:
            from napari_sparseseg.prediction.cluster import Tls

            wishes["tls"] = Tls(*tls)
        if suffix is None:
            predict_one(talk, load_model(model), images, out, wishes)
        else:
            predict_each(talk, load_model(model), images, out, suffix, wishes)
        return
    unasked = {"glass": "0", "smooth_planes": 0.0, "smallest_object": 0, "workers": 1}
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in (wishes | {"tile": tile, "tls": tls}).items()
        if value != unasked.get(name)
    ]
    if given:
        raise OptionError(
            f"{', '.join(given)} is for a single image into a file; give --out a "
            "suffix such as .ome.zarr, or --format one for the images of a folder."
        )
    predict_folder(
        talk, load_model(model), images, out, probabilities, overwrite, device
    )


def predict_folder(
    talk: Talk,
    model: SegmentationModel,
    images: Path,
    out: Path,
    probabilities: bool,
    overwrite: bool,
    device: str,
) -> None:
    """Predict a folder of images into a folder, and tell about it."""
    from napari_sparseseg.folders import iter_predict_folder

    done = []
    events = iter_predict_folder(
        model,
        images,
        out,
        probabilities=probabilities,
        device=device,
        overwrite=overwrite,
    )
    with talk.progress(1) as show:
        for event in events:
            done.append(event)
            state = f"{event.done}/{event.total} {event.stem}"
            show(event.done / event.total, state)
            if event.failure or event.warning:
                talk.say(f"{event.stem}: {event.failure or event.warning}")
    failures = [f"{each.stem}: {each.failure}" for each in done if each.failure]
    warnings = [f"{each.stem}: {each.warning}" for each in done if each.warning]
    talk.say(f"{len(done) - len(failures)} of {len(done)} images predicted, in {out}")
    talk.result(
        {
            "predicted": [each.stem for each in done if not each.failure],
            "failures": failures,
            "warnings": warnings,
            "seconds": sum(each.seconds for each in done),
        }
    )
    if failures:
        raise typer.Exit(BAD_INPUT if len(failures) == len(done) else SOME_FAILED)


def predict_one(
    talk: Talk, model: SegmentationModel, image: Path, out: Path, wishes: Any
) -> None:
    """Predict an image into a file, and tell about it; Ctrl-C ends it after a chunk."""
    from napari_sparseseg.files import (
        PredictionStarted,
        PredictionWritten,
        iter_predict_file,
    )

    clock = ChunkClock(talk.console.is_terminal)
    with (
        talk.progress(1) as show,
        interrupts() as interrupted,
        closing(iter_predict_file(model, image, out, **wishes)) as events,
    ):
        for event in events:
            if isinstance(event, PredictionStarted):
                for note in event.notes:
                    talk.say(note)
            if isinstance(event, PredictionWritten):
                break
            clock.take(event)
            show(clock.share, clock.state)
            if interrupted():
                talk.say(
                    f"stopped after {clock.done} of {clock.total} chunks; the same "
                    "command goes on from there"
                )
                raise typer.Exit(INTERRUPTED)
    assert isinstance(event, PredictionWritten)
    if event.note:
        talk.say(event.note)
    talk.say(f"saved: {out}")
    talk.result(
        {
            "written": [str(path) for path in event.paths],
            "chunks": clock.total,
            "chunks_of_glass": clock.n_glass,
            "pixels": clock.pixels,
            "seconds": clock.seconds,
        }
    )


def predict_each(
    talk: Talk,
    model: SegmentationModel,
    images: Path,
    out: Path,
    suffix: str,
    wishes: Any,
) -> None:
    """Predict the images of a folder into files of a format, and tell about it."""
    from napari_sparseseg.files import PredictionStarted, PredictionWritten
    from napari_sparseseg.many_files import (
        ImageFailed,
        iter_predict_images,
        jobs_of_folder,
    )

    jobs = jobs_of_folder(images, out, suffix)
    clock = ChunkClock(talk.console.is_terminal)
    written, failures = [], []
    with (
        talk.progress(1) as show,
        interrupts() as interrupted,
        closing(iter_predict_images(model, jobs, wishes)) as events,
    ):
        for place, event in events:
            name = jobs[place].image.name
            notes: tuple[str, ...] = ()
            if isinstance(event, PredictionWritten):
                written += [str(path) for path in event.paths]
                notes = (event.note,) if event.note else ()
                clock = ChunkClock(talk.console.is_terminal)
            elif isinstance(event, ImageFailed):
                failures.append(f"{name}: {event.message}")
                notes = (event.message,)
            else:
                clock.take(event)
                notes = event.notes if isinstance(event, PredictionStarted) else ()
            for note in notes:
                talk.say(f"{name}: {note}")
            show(
                (place + clock.share) / len(jobs),
                f"{place + 1}/{len(jobs)} {name}: {clock.state}",
            )
            if interrupted():
                talk.say("stopped; the same command goes on from there")
                raise typer.Exit(INTERRUPTED)
    done = len(jobs) - len(failures)
    talk.say(f"{done} of {len(jobs)} images are predicted, in {out}")
    talk.result({"written": written, "failures": failures})
    if failures:
        raise typer.Exit(BAD_INPUT if not done else SOME_FAILED)


@app.command("pseudo-masks")
def pseudo_masks(
    images: Annotated[Path, typer.Argument(help="Image or folder of images.")],
    boxes: Annotated[Path, typer.Argument(help="JSON of boxes or folder of them.")],
    out: Annotated[Path, typer.Option(help="Folder of the label maps.")],
    classes: Annotated[
        Path | None, typer.Option(help="Class table (JSON); default: that in BOXES.")
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS|0",
            help="Class of all outside of boxes; 0 = ignored. Default: the first.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="box|ellipse|grabcut|sdi-box|crf-box|cam|acol")
    ] = "acol",
    crf: Annotated[
        bool | None,
        typer.Option(
            "--crf/--no-crf",
            help="Refine by a dense CRF; default: as the method has it.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="resnet50|resnet18", help="Default: resnet18 on a CPU, else 50."
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(metavar="none|imagenet|FILE", help="The backbone's at the start."),
    ] = "none",
    seed: Seed = 0,
    window: Window = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Longest time to learn; cannot give the same masks twice."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the images; in each round of sdi-box and crf-box, epochs "
            "of 25 mini-batches."
        ),
    ] = None,
    device: Device = "auto",
    json_path: Json = None,
) -> None:
    """Make label maps from boxes drawn around objects."""
    from napari_sparseseg.pseudo_mask_folders import (
        iter_pseudo_mask_folder,
        read_box_pairs,
    )
    from napari_sparseseg.pseudo_masks.api import prepare
    from napari_sparseseg.pseudo_masks.method_names import MINING

    talk = Talk(json_path)
    # The words of the user go in as they are: what they may be is checked there.
    wishes: Any = {
        "background": background,
        "method": method,
        "crf": crf,
        "backbone": backbone,
        "weights": weights,
        "seed": seed,
        "window": window,
        "seconds": seconds,
        "epochs": epochs,
        "device": device,
    }
    inputs = read_box_pairs(images, boxes, classes)
    for sentence in (*inputs.notes, *inputs.failures):
        talk.say(sentence)
    wishes["classes"] = inputs.classes
    preparation = prepare(inputs.images, inputs.boxes, **wishes)
    for sentence in preparation.notes:
        talk.say(sentence)
    outside = preparation.options.background
    if background is None and outside and inputs.classes is not None:
        name = inputs.classes.by_value(outside).name
        talk.say(
            f"outside of all boxes is '{name}'; --background names another class, or 0 "
            "to ignore it"
        )
    if method in MINING and weights == "none":
        talk.say(
            "learning starts from random weights, from which few boxes teach little: "
            "look at the masks, give --weights, or take another method"
        )
    clock = MaskClock(len(preparation.images), seconds)
    with talk.progress(1) as show:
        events = iter_pseudo_mask_folder(inputs, preparation, out)
        result = clock.follow(events, show)
    for sentence in result.notes[len(preparation.notes) :]:
        talk.say(sentence)
    talk.say(f"{len(result.masks)} pseudo-mask(s) by {method} are in {out}")
    talk.result(
        result.record
        | {
            "made": [*result.masks],
            "notes": [*inputs.notes, *result.notes],
            "failures": inputs.failures,
        }
    )
    if inputs.failures:
        raise typer.Exit(SOME_FAILED)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Label map or folder.")],
    truth: Annotated[Path, typer.Argument(help="Label map or folder.")],
    classes: Annotated[Path | None, typer.Option(help="Class table (JSON).")] = None,
    json_path: Json = None,
) -> None:
    """Score label maps against truth: Dice of every class, overall, accuracy."""
    from napari_sparseseg.folders import evaluate_folders

    talk = Talk(json_path)
    found = evaluate_folders(predictions, truth, classes)
    for sentence in (*found.notes, *found.failures):
        talk.say(sentence)
    content = found.scores.to_json()
    talk.console.print(score_table("Dice", content))
    talk.result(content | {"notes": found.notes, "failures": found.failures})
    if found.failures:
        raise typer.Exit(SOME_FAILED)


@app.command("export")
def export(
    labels: Annotated[Path, typer.Argument(help="Label map in any format.")],
    out: Annotated[Path, typer.Option(help=f"File to write: {LABEL_SUFFIXES}.")],
    image: Annotated[
        Path | None,
        typer.Option(help="Image they belong to; its place and pixel size count."),
    ] = None,
    series: Series = None,
    classes: Classes = None,
    values: Values = None,
    simplify: Annotated[
        float,
        typer.Option(
            metavar="PX", help="GeoJSON: how far outlines may lie from the exact ones."
        ),
    ] = 0.0,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="GeoJSON: one object a class.")
    ] = False,
    colors: Annotated[
        bool, typer.Option("--colors", help="PNG: colours instead of values.")
    ] = False,
    is_prediction: Annotated[
        bool, typer.Option("--prediction", help="DICOM: say that a model made them.")
    ] = False,
    overwrite: Overwrite = False,
    json_path: Json = None,
) -> None:
    """Write a label map in the format of another program."""
    from napari_sparseseg.conversion import export_file
    from napari_sparseseg.io.export import ExportOptions

    talk = Talk(json_path)
    done = export_file(
        labels,
        out,
        image,
        series=series,
        classes=classes,
        values=values_of(values),
        options=ExportOptions(
            simplify_px=simplify,
            by_class=by_class,
            colors=colors,
            is_prediction=is_prediction,
        ),
        overwrite=overwrite,
    )
    tell_converted(talk, done)


@app.command("import")
def import_annotations(
    annotations: Annotated[
        Path,
        typer.Argument(
            help="GeoJSON, DICOM-SEG, RTSTRUCT, or a label map in any format."
        ),
    ],
    image: Annotated[Path, typer.Option(help="Image they were drawn on.")],
    out: Annotated[Path, typer.Option(help=f"Labels to write: {LABEL_SUFFIXES}.")],
    series: Series = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class table (JSON) with the names to use.")
    ] = None,
    values: Values = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Class to read; may be repeated."),
    ] = None,
    unknown: Annotated[
        str,
        typer.Option(metavar="add|refuse", help="What to do with names of no class."),
    ] = "add",
    overlap: Annotated[
        str,
        typer.Option(
            metavar="smaller|none|refuse",
            help="Label of pixels in several classes: the smaller region's, or none.",
        ),
    ] = "smaller",
    overwrite: Overwrite = False,
    json_path: Json = None,
) -> None:
    """Make a label map from the annotations of another program."""
    from napari_sparseseg.conversion import import_file

    talk = Talk(json_path)
    # The words of the user go in as they are: what they may be is checked there.
    wishes: Any = {"unknown": unknown, "overlap": overlap}
    done = import_file(
        annotations,
        image,
        out,
        series=series,
        classes=classes,
        values=values_of(values),
        only=only or (),
        overwrite=overwrite,
        **wishes,
    )
    tell_converted(talk, done)


def values_of(text: str | None) -> dict[int, int] | None:
    """Return which class value each value of a file stands for, as "0=1,1=2" says."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {int(value): int(meant) for value, meant in pairs}
    except ValueError:
        raise OptionError(
            f"the values are {text!r}; expected each value of the file and the class "
            "value it stands for, as 0=1,1=2."
        ) from None


def tell_converted(talk: Talk, done: Converted) -> None:
    """Tell what was written, and how much of each class."""
    for note in done.notes:
        talk.say(note)
    table = Table(title=escape(done.paths[0].name))
    table.add_column("class")
    table.add_column("pixels", justify="right")
    is_sized = any(each.area_um2 or each.volume_mm3 for each in done.sizes)
    if is_sized:
        table.add_column("size", justify="right")
    for each in done.sizes:
        row = (escape(each.name), str(each.pixels))
        table.add_row(*row, *([size_words(each)] if is_sized else []))
    talk.console.print(table)
    talk.say(f"saved: {' and '.join(map(str, done.paths))}")
    talk.result(
        {
            "paths": [str(path) for path in done.paths],
            "notes": list(done.notes),
            "classes": [asdict(each) for each in done.sizes],
        }
    )


def size_words(size: ClassSize) -> str:
    """Word how much of a class there is, as "1.2 mm2" or "3.4 ml"."""
    if size.volume_mm3 is not None:
        return f"{size.volume_mm3 / 1000:.4g} ml"
    return f"{(size.area_um2 or 0) / 1e6:.4g} mm2"


@app.command()
def info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Model (.safetensors), image, or folder of one."
        ),
    ],
    series: Series = None,
    json_path: Json = None,
) -> None:
    """Tell what is known about a model or an image."""
    talk = Talk(json_path)
    if path.name.endswith(".safetensors"):
        from napari_sparseseg.io.model_file import load_model

        report = describe(load_model(path))
        talk.console.print(model_table(report))
    else:
        report = describe_image(path, series)
        talk.console.print(image_table(report))
        for note in report["notes"]:
            talk.say(note)
    talk.result(report)


@app.command("export-model")
def export_model(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    onnx: Annotated[Path, typer.Option(help="ONNX file to write.")],
    part: Annotated[
        str | None,
        typer.Option(metavar="head|network", help="Default: the one that predicts."),
    ] = None,
    json_path: Json = None,
) -> None:
    """Write a model for programs that know no torch, with what they need to know."""
    from napari_sparseseg.folders import make_folder
    from napari_sparseseg.io.model_file import load_model
    from napari_sparseseg.io.onnx_file import (
        check_can_export,
        contract,
        export_onnx,
        exported_part,
    )

    talk = Talk(json_path)
    check_can_export(onnx)
    loaded = load_model(model)
    chosen = exported_part(loaded, part)
    make_folder(onnx.resolve().parent)
    agreement = export_onnx(loaded, onnx, chosen)
    talk.say(f"saved: {onnx}, the {chosen}; give it images as its metadata tell")
    talk.say(
        "not checked: onnxruntime is not installed"
        if agreement is None
        else "checked with onnxruntime: class probabilities differ by at most "
        f"{agreement.difference:.1e} in an image where those of a class lie up to "
        f"{agreement.spread:.2g} apart"
    )
    difference, spread = agreement or (None, None)
    checked = {"largest_difference": difference, "spread": spread}
    talk.result(contract(loaded, chosen) | checked)


def notes_on(options: TrainingOptions, *, resumes: bool) -> list[str]:
    """Tell of a training what may not be meant, and what it leaves on the disk."""
    notes = []
    is_random = options.encoder_weights == "none" and not options.freeze_encoder
    if options.network.name in ENCODER_OF and is_random and not resumes:
        notes.append(
            f"the features of {options.network.name} start at random; ImageNet's learn "
            "from fewer labels: --encoder-weights imagenet, or a file"
        )
    if options.loss == "dice" and options.balancing != "none":
        notes.append(
            "the dice loss counts every class the same by itself; --balance "
            f"{options.balancing} weighs the pixels in it once more"
        )
    keeps = options.freeze_encoder or options.head_features != "fixed"
    if keeps and options.feature_cache.wants(options.device):
        notes.append(
            f"features of your images are kept in {options.feature_cache.place}, as "
            "far as they fit; they tell much of the images, and may be deleted"
        )
    return notes


def fetch(talk: Talk, encoders: Sequence[EncoderName]) -> None:
    """Download the published weights of encoders, and tell how far that is."""
    for name in encoders:
        size = PUBLISHED[name].size_mib
        with talk.progress(size) as show:
            for received in fetch_in_parts(name, "imagenet"):
                done = received / MIB
                show(
                    done,
                    f"downloading the ImageNet weights of {name}: "
                    f"{int(done / size * 10) * 10} % of {size:.0f} MiB",
                )


def learn(
    talk: Talk,
    trainer: Trainer,
    steps: int | None,
    seconds: float | None,
    checkpoint: Path,
    interrupted: Callable[[], bool],
) -> KeyboardInterrupt | SparseSegError | None:
    """Run a training and tell about it; return what ended it early, if anything."""
    from napari_sparseseg.api import iter_events

    clock = Clock()
    with talk.progress(steps or seconds or 1) as show:
        try:
            with closing(
                iter_events(trainer, steps, seconds, checkpoint, interrupted)
            ) as events:
                for event in events:
                    clock.take(event)
                    show(clock.seconds if steps is None else clock.steps, clock.state)
            return KeyboardInterrupt() if trainer.ranks.any(interrupted()) else None
        # Whatever it is, the model of what was learned is to be saved: it is smaller
        # than a checkpoint that could not be written.
        except (KeyboardInterrupt, SparseSegError) as error:
            return error


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM wait for the end of a step; the next does not.

    A step that is broken off could not be gone on from to the bit.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            _interrupt(number, frame)
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_place(model: Path) -> None:
    """Make sure, before hours of learning, that a model can be written in the end.

    Raises
    ------
    OutputError
        If it cannot, or something else lies there.
    """
    from napari_sparseseg.folders import check_writable, make_folder
    from napari_sparseseg.io.model_file import is_own_file

    make_folder(model.resolve().parent)
    check_writable(model.resolve().parent)
    if model.exists() and not is_own_file(model) and not is_empty(model):
        raise OutputError(
            f"{model} is no model of this program, but the new one would take its "
            "place; choose another name.",
            path=str(model),
        )


def is_empty(path: Path) -> bool:
    """Tell whether a path is a file without content, as ``mktemp`` makes them."""
    return path.is_file() and path.stat().st_size == 0


class Clock:
    """Follows a training: time, steps, and its state in one line."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.steps = 0
        self.state = "learning"

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def take(self, event: object) -> None:
        """Learn from an event."""
        from napari_sparseseg.learning import events

        if isinstance(event, events.StepDone):
            self.steps += 1
        elif isinstance(event, events.HeadFitted):
            score = "" if event.score is None else f", Dice {event.score.overall:.3f}"
            self.state = f"head fitted at scale {event.scale:g}{score}"
        elif isinstance(event, events.Validated):
            self.state = f"step {event.step}: {event.reason}"
        elif isinstance(event, events.ScaleChosen):
            self.state = f"step {event.step}: the network works at {event.scale:g}"
        elif isinstance(event, events.Recovered):
            self.state = (
                f"step {event.step}: the loss was no number; back to the last good "
                f"weights, with learning rate {event.learning_rate:.1e}"
            )
        elif isinstance(event, events.MemorySaved):
            self.state = event.note


class ChunkClock:
    """Follows the prediction of an image: chunks, speed, time left, in one line.

    Parameters
    ----------
    is_lively
        Whether the line changes every second, and not every ten.
    """

    def __init__(self, is_lively: bool) -> None:
        self._pause_s = 1 if is_lively else 10
        self._told = self._started = time.perf_counter()
        self._todo = 1
        self.done = self.total = self.n_glass = self.pixels = 0
        self.state = "opening the image"

    @property
    def seconds(self) -> float:
        """Seconds since the first chunk was begun."""
        return time.perf_counter() - self._started

    @property
    def share(self) -> float:
        """Share of the chunks that are finished."""
        return self.done / max(1, self.total)

    def take(self, event: object) -> None:
        """Learn from an event."""
        from napari_sparseseg.files import PredictionStarted
        from napari_sparseseg.prediction.large import ChunkDone

        if isinstance(event, PredictionStarted):
            self.done, self.total = event.n_done, event.n_chunks
            self.n_glass, self._todo = event.n_glass, event.n_pixels
            self._told = self._started = time.perf_counter()
            glass = f"; {event.n_glass} of glass are left out" if event.n_glass else ""
            before = f"; {event.n_done} finished earlier" if event.n_done else ""
            noun = "chunk" if event.n_chunks == 1 else "chunks"
            self.state = f"{event.n_chunks} {noun}{before}{glass}"
        elif isinstance(event, ChunkDone):
            self.done += 1
            self.pixels += event.n_pixels
            now = time.perf_counter()
            if self.done == self.total or now - self._told >= self._pause_s:
                self._told = now
                self.state = self._line()

    def _line(self) -> str:
        speed = self.pixels / max(self.seconds, 1e-9)
        left = round((self._todo - self.pixels) / speed)
        minutes, seconds = divmod(left, 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{self.done}/{self.total} chunks, {speed / 1e6:.2f} Mpx/s, "
            f"{hours}:{minutes:02}:{seconds:02} left"
        )


class MaskClock:
    """Follows the making of pseudo-masks: how much is done, and what, in one line.

    The bar fills once while a network learns, and once while masks are written.
    """

    def __init__(self, n_images: int, seconds: float | None) -> None:
        self._n_images, self._seconds = n_images, seconds
        self._started = time.perf_counter()
        self._steps = self._rounds = 1
        self._written = 0
        self.done = 0.0
        self.state = "starting"

    def follow(
        self,
        events: Generator[object, None, PseudoMasks],
        show: Callable[[float, str], None],
    ) -> PseudoMasks:
        """Show what happens; return the result."""
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                result: PseudoMasks = stop.value
                return result
            self.take(event)
            show(self.done, self.state)

    def take(self, event: object) -> None:
        """Learn from an event."""
        from napari_sparseseg.pseudo_masks import methods, mining, recursive

        if isinstance(event, mining.MiningStarted):
            self._steps = event.steps
        elif isinstance(event, mining.MiningStepDone):
            self._learned(event.step / self._steps)
            self.state = f"learning, epoch {event.epoch}"
        elif isinstance(event, recursive.RoundStarted):
            self._steps = event.steps
            self._rounds = event.rounds
            self.state = f"learning, round {event.number} of {event.rounds}"
        elif isinstance(event, recursive.RoundStepDone):
            rounds = event.number - 1 + event.step / self._steps
            self._learned(rounds / self._rounds)
        elif isinstance(event, methods.BoxDone):
            self.state = (
                f"{self._written}/{self._n_images} {event.name}, box {event.place + 1}"
            )
        elif isinstance(event, methods.ImageDone):
            self._written += 1
            self.done = self._written / self._n_images
            self.state = f"{self._written}/{self._n_images} {event.name}"

    def _learned(self, share: float) -> None:
        """Note the share of training that is over, by steps or by time."""
        passed = time.perf_counter() - self._started
        self.done = max(share, passed / self._seconds if self._seconds else 0)


def describe(model: Any) -> dict[str, Any]:
    """Return what is known about a model as JSON values."""
    info = model.info
    return {
        "classes": info.classes.to_json()["classes"],
        "shown": info.shown,
        "scales": dict(info.scales),
        "network": {"name": info.network.name, **info.network.options},
        "head_features": info.head_features,
        "channels": info.in_channels,
        "um_per_px": info.um_per_px,
        "normalisation": {
            "kind": info.normalisation.kind,
            "low": info.normalisation.low,
            "high": info.normalisation.high,
        },
        **info.training,
    }


def model_table(report: dict[str, Any]) -> Table:
    """Return the table of a model's classes."""
    from napari_sparseseg.learning.judge import NAMES

    scales = ", ".join(f"{part} {scale:g}" for part, scale in report["scales"].items())
    title = (
        f"{NAMES[report['shown']]}; balance {report['balancing']}, {report['steps']} "
        f"steps, seed {report['seed']}"
    )
    table = Table(title=title)
    for column in ("value", "class", "strokes", "pixels", *NAMES):
        table.add_column(column, justify="left" if column == "class" else "right")
    for each in report["classes"]:
        value = str(each["value"])
        dice = [report["held_out_dice"].get(part, {}).get(value) for part in NAMES]
        table.add_row(
            value,
            escape(each["name"]),
            str(report["strokes"].get(value, 0)),
            str(report["pixels"].get(value, 0)),
            *map(number, dice),
        )
    size = report["um_per_px"]
    shape = ", ".join(f"{key} {value}" for key, value in report["network"].items())
    normalisation = report["normalisation"]
    reason = report.get("reason")
    table.caption = "\n".join(
        (
            *([reason] if reason else []),
            f"{', '.join(NAMES)}: Dice on held-out strokes",
            f"working pixels per image pixel: {scales}",
            f"recipe {report['recipe']}, network: {shape}",
            *special(report),
            f"channels {report['channels']}, pixel size "
            f"{'not known' if size is None else f'{size:g} um'}, intensities "
            f"{normalisation['low']:g} to {normalisation['high']:g}",
        )
    )
    return table


def special(report: dict[str, Any]) -> list[str]:
    """Return a line of what differs from the defaults, if anything does.

    Models of before lack some of it.
    """
    loss = report.get("loss", "ce")
    if loss == "l1l2":
        loss += f" (L1 {report['l1_weight']:g}, L2 {report['l2_weight']:g})"
    smoothness, features = report.get("smoothness", 0), report["head_features"]
    weights = report.get("encoder_weights", "none")
    words = {
        f"loss {loss}": loss != "ce",
        f"smoothness {smoothness:g}": smoothness != 0,
        f"encoder weights {weights}": weights != "none",
        "encoder frozen": report.get("freeze_encoder", False),
        f"head sees {features}": features != "fixed",
    }
    differing = [each for each, differs in words.items() if differs]
    return [", ".join(differing)] if differing else []


def describe_image(path: Path, series: str | None) -> dict[str, Any]:
    """Return what is known about an image, ready for JSON.

    Of a folder of several series, without one being chosen, the list of them.
    """
    from napari_sparseseg.io.sources import list_series, open_image

    if series is None and path.is_dir() and len(found := list_series(path)) > 1:
        listed = [
            {"number": each.number, "what": str(each), "spacing_mm": each.spacing}
            for each in found
        ]
        note = "choose one with --series, by its number"
        return {"name": path.name, "series": listed, "notes": [note]}
    source = open_image(path, series=series)
    geometry = source.geometry
    return {
        "name": source.name,
        "shape": source.data.shape,
        "axes": [*geometry.axes, *(["c"] if source.n_channels > 1 else [])],
        "dtype": str(source.data.dtype),
        "levels": [level.shape for level in source.levels],
        "spacing": geometry.spacing,
        "unit": geometry.unit,
        "origin": geometry.origin,
        "direction_zyx_lps": geometry.direction,
        "rgb": source.is_rgb,
        "window": source.window,
        "files": len(source.files),
        "notes": list(source.notes),
    }


def image_table(report: dict[str, Any]) -> Table:
    """Show `describe_image`."""
    table = Table("", escape(report["name"]), title="Image")
    if "series" in report:
        for each in report["series"]:
            table.add_row(str(each["number"]), escape(each["what"]))
        return table
    sizes = " x ".join(map(str, report["shape"]))
    table.add_row("shape", f"{sizes} ({', '.join(report['axes'])})")
    table.add_row("type", f"{report['dtype']}{', RGB' if report['rgb'] else ''}")
    table.add_row("pixel size", spacing_words(report))
    if len(report["levels"]) > 1:
        table.add_row("levels", ", ".join(f"{y} x {x}" for y, x in _planes(report)))
    if report["window"] is not None:
        low, high = report["window"]
        table.add_row("window", f"{low:g} to {high:g}")
    if report["files"]:
        table.add_row("files", str(report["files"]))
    return table


def spacing_words(report: dict[str, Any]) -> str:
    """Word the size of pixels, as "1.6 x 0.57 x 0.57 mm"."""
    if report["unit"] == "px":
        return "not known"
    numbers = " x ".join(f"{each:.4g}" for each in report["spacing"])
    return f"{numbers} {report['unit']}"


def _planes(report: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Give y and x of each level."""
    at = report["axes"].index("y")
    for shape in report["levels"]:
        yield shape[at], shape[at + 1]


def score_table(title: str, content: dict[str, Any]) -> Table:
    """Return the table of scores."""
    table = Table(title=escape(title))
    table.add_column("class")
    table.add_column("Dice", justify="right")
    for name, dice in content["dice"].items():
        table.add_row(escape(name), number(dice))
    table.add_section()
    table.add_row("overall", number(content["overall_dice"]))
    table.add_row("pixel accuracy", number(content["pixel_accuracy"]))
    table.add_row("cross-entropy", number(content["cross_entropy"]))
    return table


def number(value: float | None) -> str:
    """Return a score with three digits, a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def number_or_auto(text: str) -> Any:
    """Return ``"auto"`` or the number that *text* is."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise OptionError(
            f"the scale is {text!r}; expected auto or a number such as 0.25."
        ) from None


def on_or_off(what: str, text: str) -> bool:
    """Return whether *text* is ``"on"``; it must be that or ``"off"``."""
    if text not in ("on", "off"):
        raise OptionError(f"{what} is {text!r}; expected on or off.")
    return text == "on"


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def with_option(error: SparseSegError) -> str:
    """Return the sentence of an error, and the option that mends it where one does."""
    option = error.values.get("option")
    return f"{str(error).removesuffix('.')} ({option})." if option else str(error)


def main() -> None:
    """Run the command; bad input gives one sentence and exit code 2."""
    # Threads that wait for each other sleep: where other programs use the cores too, a
    # training step takes a fifth of the time. It counts when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A cluster ends jobs by this signal: they leave a checkpoint like any other.
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A name in letters that the terminal does not have must not end the program.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell_warning
            app()
    except SparseSegError as error:
        print(f"error: {with_option(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (MemoryError, RuntimeError) as error:
        from napari_sparseseg.networks.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(
            "error: the memory does not suffice; close other programs, or use smaller "
            "images or a smaller scale.",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
