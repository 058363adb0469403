"""How good each network is after the same time of one core, on the same strokes.

Every network of the project learns alone, without the head start, as
``sparseseg train --net NAME --head-start off`` has it on this device. Seconds are those
that a core spent on the process, not those of the clock: so other programs on the
machine, and runs side by side, favour nobody. What is set aside at a mark is scored
afterwards. Every run has a process of its own; finished ones are kept at once and are
not repeated.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks._learn_data import STROKES, data_folder, read_learn_data, summary
from benchmarks._machine import (
    in_fresh_process,
    machine,
    sentence,
    source_hash,
    usable_cores,
)
from benchmarks._report import (
    RESULTS,
    Section,
    command_line,
    go_on,
    middle,
    new_section,
    publish,
    write_json,
)
from benchmarks.learn import parse_marks
from napari_sparseseg.networks.network_names import (
    WHEN_TO_CHOOSE,
    NetworkName,
    preset_on,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel

    Record = dict[str, Any]

NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

#: The images that are learned.
TASK = "glas"

MARKS = (60.0, 120.0, 240.0)


def main() -> None:
    """Run what is missing, then print the table of all runs."""
    args = parse_arguments()
    folder = data_folder() / TASK
    if not folder.is_dir():
        print(
            f"skipped: real images are not at {folder}; set SPARSESEG_DATA to the "
            "folder that holds them."
        )
        return
    path = args.results / f"networks{'' if args.device == 'cpu' else '-cuda'}.json"
    content = open_results(path, args)
    wanted = [(name, seed) for seed in range(args.seeds) for name in args.networks]
    missing = [each for each in wanted if find(content, *each) is None]
    with ThreadPoolExecutor(args.workers) as pool:
        running = {
            pool.submit(run, folder, name, seed, args): (name, seed)
            for name, seed in missing
        }
        for future in as_completed(running):
            name, seed = running[future]
            content["runs"].append({"network": name, "seed": seed, **future.result()})
            write_json(path, content)
            print(f"{name}, seed {seed}: done", flush=True)
    publish(path, *sections(content), *notes(content))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.networks", description=__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--seeds", type=int, default=1, help="runs of each network")
    add("--marks", type=parse_marks, default=MARKS, help="seconds, as 60,120,240")
    add("--encoder-weights", default="none", help="none, imagenet or a file")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--workers", type=int, help="runs side by side; default one a core")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    add("--fresh", action="store_true", help="forget the runs done before")
    args = parser.parse_args()
    args.workers = args.workers or (usable_cores() if args.device == "cpu" else 1)
    return args


def open_results(path: Path, args: argparse.Namespace) -> Record:
    """Return the results of before, to go on with, or new ones without a run.

    Runs of other marks, weights, devices or machines are not mixed.
    """
    weights = args.encoder_weights
    settings: Record = {
        "set": TASK,
        "labels": STROKES[TASK],
        "preset": preset_on(args.device),
        "marks": list(args.marks),
        # Of a file the place is nobody's business.
        "encoder_weights": weights if weights in ("none", "imagenet") else "file",
        "device": args.device,
        "machine": machine("napari-sparseseg", "torchvision", "kornia")
        | {"torch_threads": 1},
    }
    return go_on(path, settings, ("runs",), fresh=args.fresh)


def find(content: Record, network: NetworkName, seed: int) -> Record | None:
    """Return the run of a network and a seed, None where there is none."""
    runs = content["runs"]
    return next(
        (run for run in runs if (run["network"], run["seed"]) == (network, seed)), None
    )


def run(folder: Path, name: NetworkName, seed: int, args: argparse.Namespace) -> Record:
    """Run one network with one seed in a process of its own."""
    result = in_fresh_process(
        train_network,
        folder,
        name,
        seed,
        list(args.marks),
        args.encoder_weights,
        args.device,
    )
    return {"command": command_line("networks"), "source": source_hash(), **result}


def train_network(
    folder: Path,
    name: NetworkName,
    seed: int,
    marks: list[float],
    encoder_weights: str,
    device: str,
) -> Record:
    """Learn until the last mark and score the model of each mark on the test images.

    Returns
    -------
    dict
        JSON values: the number of the network's ``parameters``, and ``marks``: each
        with its ``mark``, the ``seconds`` and ``steps`` so far, the ``scale`` and the
        scores of :func:`~benchmarks._learn_data.summary`.
    """
    import torch

    from benchmarks._learn_ours import import_all
    from napari_sparseseg.api import make_trainer
    from napari_sparseseg.prediction.predictor import predict_image

    torch.set_num_threads(1)
    import_all()
    data = read_learn_data(folder, STROKES[TASK])
    before = time.process_time()
    trainer = make_trainer(
        data.images,
        data.labels,
        classes=data.classes,
        net=name,
        encoder_weights=encoder_weights,
        head_start=False,
        seed=seed,
        device=device,
    )
    rows: list[Record] = []
    parameters = 0
    for mark, seconds, model in iter_models(trainer, marks, before):
        model = model.to(device)
        parameters = sum(each.numel() for each in model.parts["network"].parameters())
        predictions = {
            image: predict_image(model, pixels)[0]
            for image, pixels in data.test_images.items()
        }
        rows.append(
            {
                "mark": mark,
                "seconds": seconds,
                "steps": trainer.steps,
                "scale": model.info.scales["network"],
                **summary(data.score(predictions)),
            }
        )
    return {"parameters": parameters, "marks": rows}


def iter_models(
    trainer: Trainer, marks: list[float], started: float
) -> Iterator[tuple[float, float, SegmentationModel]]:
    """Learn, and yield the model at each mark with the seconds it had.

    Parameters
    ----------
    trainer
        Before its first step.
    marks
        Ascending, in seconds.
    started
        What ``time.process_time`` was when the training began. What the consumer does
        with a model, and taking it, does not count.
    """
    left = list(marks)
    for _ in trainer.run():
        seconds = time.process_time() - started
        if trainer.steps == 0 or seconds < left[0]:
            continue
        paused = time.process_time()
        yield left.pop(0), seconds, trainer.model()
        started += time.process_time() - paused
        if not left:
            return


def sections(content: Record) -> list[Section]:
    """Return the table of all runs."""
    marks = content["marks"]
    weights = {"none": "random", "imagenet": "ImageNet's", "file": "a file's"}
    section = new_section(
        f"{content['set']}, {content['labels']}, {content['device']}, "
        f"{content['preset']} networks, first weights of encoders: "
        f"{weights[content['encoder_weights']]}, no head start: Dice on the test "
        "images (mean over classes), and steps, after seconds of one core; median over "
        "seeds, and the range",
        [
            "network",
            "seeds",
            "weights\n(millions)",
            *(f"{mark:g} s" for mark in marks),
            *(f"steps\nin {mark:g} s" for mark in marks),
            "working\nresolution",
        ],
    )
    for name in WHEN_TO_CHOOSE:
        runs = [run for run in content["runs"] if run["network"] == name]
        if not runs:
            continue
        by_mark = list(zip(*(run["marks"] for run in runs), strict=True))
        section.table.add_row(
            name,
            str(len(runs)),
            f"{runs[0]['parameters'] / 1e6:.2f}",
            *(middle([row["overall_dice"] for row in rows]) for rows in by_mark),
            *(middle([row["steps"] for row in rows], 0) for rows in by_mark),
            " ".join(sorted({f"{row['scale']:g}" for row in by_mark[-1]})),
        )
    return [section]


def notes(content: Record) -> list[str]:
    """Say what the runs were made on, with and of."""
    sources = {run["source"] for run in content["runs"]}
    commands = dict.fromkeys(run["command"] for run in content["runs"])
    mixed = f"CAUTION: runs of {len(sources)} states of the source"
    said = [sentence(content["machine"]), *commands]
    return [mixed, *said] if len(sources) > 1 else said


if __name__ == "__main__":
    main()
