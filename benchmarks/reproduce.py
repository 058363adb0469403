"""The comparisons of the three papers, made again on the images that are here.

Balancing by label set (Bokhorst 2018, table 2) and the decoders on VGG16 (Abdulhamid,
table 1) are trained, the head start being off; methods that make masks of boxes (Fan
2022, tables 1 and 2) are taken from the results of ``benchmarks.boxes``. Every training
has a process of its own. Finished ones are kept at once and are not repeated, so that
what was stopped goes on where it was, or is widened by more seeds; seed 0 comes first.
At the end a report is written that lays all beside the papers' numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _reproduce_balancing as balancing
from benchmarks import _reproduce_decoders as decoders
from benchmarks._learn_data import STROKES, data_folder
from benchmarks._machine import in_fresh_process, machine, source_hash, usable_cores
from benchmarks._report import RESULTS, command_line, write_json
from benchmarks._reproduce_papers import BALANCINGS, LABEL_SETS
from benchmarks._reproduce_report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks._reproduce_training import Plan

    Record = dict[str, Any]

PARTS = ("balancing", "decoders")

DOCS = Path(__file__).parents[1] / "docs"

#: Where the smoke form puts everything.
SMOKE = Path("bench") / "smoke"

SEEDS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A training to be done.

    Attributes
    ----------
    part
        Of ``PARTS``.
    what
        JSON values that tell it from all others.
    function, arguments
        What returns the rest of its record.
    """

    part: str
    what: dict[str, Any]
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        named = (f"{v}" for k, v in self.what.items() if k not in ("plan", "seed"))
        return f"{self.part}: {', '.join(named)}, seed {self.what['seed']}"


def main() -> None:
    """Run what is missing, then write the report of all runs."""
    args = parse_arguments()
    path = args.results / f"reproduce{'' if args.device == 'cpu' else '-cuda'}.json"
    content = open_results(path, args)
    jobs = [job for job in all_jobs(args) if find(content, job) is None]
    failed = [] if args.only_report else run_jobs(content, path, jobs, args)
    if args.only_report or any(content[part] for part in PARTS):
        plans = {
            "balancing": {name: cell_plan(args, name) for name in STROKES},
            "decoders": {decoders.TASK: decoder_plan(args, decoders.TASK)},
        }
        print(f"wrote {write_report(args.docs, content, plans, args.boxes)}")
    if failed:
        raise SystemExit(f"{len(failed)} failed: {'; '.join(failed)}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.reproduce", description=__doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="to train")
    add(
        "--sets", nargs="+", choices=STROKES, default=list(STROKES), help="of balancing"
    )
    add("--rows", nargs="+", choices=decoders.ROWS, default=list(decoders.ROWS))
    add("--seeds", type=int, help=f"runs of each training; default {SEEDS}, smoke 1")
    add("--steps", type=int, help="of a training of balancing; default by the device")
    add("--decoder-steps", type=int, help="of a training of decoders; likewise")
    add("--encoder-weights", default="none", help="none, imagenet or a file: of VGG16")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--workers", type=int, help="trainings side by side; default one a core")
    add("--smoke", action="store_true", help="a few steps of everything, to try it")
    add("--boxes", type=Path, default=RESULTS / "boxes.json", help="results of boxes")
    add("--results", type=Path, help="folder of the results")
    add("--docs", type=Path, help="folder of the report")
    add("--only-report", action="store_true", help="train nothing")
    add("--fresh", action="store_true", help="forget the runs done before")
    args = parser.parse_args()
    args.seeds = args.seeds or (1 if args.smoke else SEEDS)
    args.results = args.results or (SMOKE if args.smoke else RESULTS)
    args.docs = args.docs or (SMOKE if args.smoke else DOCS)
    args.workers = args.workers or (usable_cores() if args.device == "cpu" else 1)
    return args


def open_results(path: Path, args: argparse.Namespace) -> Record:
    """Return the results of before, to go on with, or new ones without a run.

    Runs of other machines are not mixed.
    """
    now = machine("napari-sparseseg", "torchvision", "kornia", "numpy")
    if (threads := threads_of(args)) is not None:
        now["torch_threads"] = threads
    if args.fresh or not path.exists():
        return {"device": args.device, "machine": now, **{part: [] for part in PARTS}}
    content: Record = json.loads(path.read_text(encoding="utf-8"))
    if content["machine"] != now and not args.only_report:
        raise SystemExit(
            f"{path.name} holds runs of another machine: {content['machine']} then, "
            f"{now} now. Start over with --fresh, or name another folder with "
            "--results."
        )
    return content


def plan_of(args: argparse.Namespace, part: str, name: str) -> Plan:
    """Return how the trainings of a part are done on a set."""
    plans, few, given = {
        "balancing": (balancing.PLANS, balancing.SMOKE_STEPS, args.steps),
        "decoders": (decoders.PLANS, decoders.SMOKE_STEPS, args.decoder_steps),
    }[part]
    plan = plans[args.device][name]
    steps = given or (few if args.smoke else plan.steps)
    return dataclasses.replace(
        plan, steps=steps, threads=threads_of(args), device=args.device
    )


def cell_plan(args: argparse.Namespace, name: str) -> Record:
    """Return what is kept of how balancings are trained on a set."""
    return plan_of(args, "balancing", name).to_json()


def decoder_plan(args: argparse.Namespace, name: str) -> Record:
    """Return what is kept of how decoders are trained on a set."""
    weights = args.encoder_weights
    # Of a file the place is nobody's business.
    kept = weights if weights in ("none", "imagenet") else "file"
    return plan_of(args, "decoders", name).to_json() | {"encoder_weights": kept}


def threads_of(args: argparse.Namespace) -> int | None:
    """Return the threads of each training; None = as many as torch takes."""
    if args.device != "cpu":
        return None
    return max(1, usable_cores() // int(args.workers))


def all_jobs(args: argparse.Namespace) -> Iterator[Job]:
    """Yield all trainings, seed by seed, as far as there are images."""
    folders = {name: data_folder() / name for name in {*args.sets, decoders.TASK}}
    for folder in folders.values():
        if not folder.is_dir():
            print(
                f"skipped: real images are not at {folder}; set SPARSESEG_DATA to the "
                "folder that holds the sets."
            )
    for seed in range(args.seeds):
        if "balancing" in args.parts:
            for name in args.sets:
                if folders[name].is_dir():
                    yield from balancing_jobs(args, folders[name], seed)
        if "decoders" in args.parts and folders[decoders.TASK].is_dir():
            yield from decoder_jobs(args, folders[decoders.TASK], seed)


def balancing_jobs(args: argparse.Namespace, folder: Path, seed: int) -> Iterator[Job]:
    """Yield the trainings of the nine cells."""
    plan = plan_of(args, "balancing", folder.name)
    for labels in LABEL_SETS:
        for way in BALANCINGS:
            what = {"set": folder.name, "labels": labels, "balancing": way}
            yield Job(
                "balancing",
                what | {"seed": seed, "plan": cell_plan(args, folder.name)},
                balancing.train_cell,
                (folder, labels, way, seed, plan),
            )


def decoder_jobs(args: argparse.Namespace, folder: Path, seed: int) -> Iterator[Job]:
    """Yield the trainings of the decoders."""
    plan = plan_of(args, "decoders", folder.name)
    for row in args.rows:
        what = {"set": folder.name, "row": row}
        yield Job(
            "decoders",
            what | {"seed": seed, "plan": decoder_plan(args, folder.name)},
            decoders.train_decoder,
            (folder, row, seed, plan, args.encoder_weights),
        )


def run_jobs(
    content: Record, path: Path, jobs: list[Job], args: argparse.Namespace
) -> list[str]:
    """Do the trainings side by side; return the titles of those that failed."""
    failed = []
    pool = ThreadPoolExecutor(args.workers)
    try:
        waiting = {pool.submit(timed, job): job for job in jobs}
        for number, future in enumerate(as_completed(waiting), 1):
            job = waiting[future]
            done = f"{number} of {len(jobs)}: {job.title}"
            if future.exception() is not None:
                traceback.print_exception(future.exception())
                print(f"{done}: failed", flush=True)
                failed.append(job.title)
                continue
            record = future.result() | {"workers": args.workers}
            content[job.part].append(record)
            write_json(path, content)
            print(f"{done}: done in {record['seconds']:.0f} s", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def timed(job: Job) -> Record:
    """Do a training in a process of its own; return its record."""
    source = source_hash()
    started = time.perf_counter()
    result = in_fresh_process(job.function, *job.arguments)
    return job.what | {
        "command": command_line("reproduce"),
        "source": source,
        "seconds": time.perf_counter() - started,
        **result,
    }


def find(content: Record, job: Job) -> Record | None:
    """Return the record of a training, None where it was not done."""
    return next(
        (
            record
            for record in content[job.part]
            if all(record[key] == value for key, value in job.what.items())
        ),
        None,
    )


if __name__ == "__main__":
    main()
