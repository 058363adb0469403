"""The report of the papers' comparisons, from results made by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks._reproduce_balancing import PLANS, train_cell
from benchmarks._reproduce_boxes import columns
from benchmarks._reproduce_compare import Claim, difference, verdict
from benchmarks._reproduce_decoders import PLANS as DECODER_PLANS
from benchmarks._reproduce_papers import BALANCINGS
from benchmarks._reproduce_report import write_report
from benchmarks._reproduce_sets import outline_length, read_label_sets, stroke_length
from benchmarks._reproduce_tables import order_sentences
from benchmarks._reproduce_training import as_png, from_png
from napari_sparseseg.annotations.classes import ClassTable, write_class_table

ABOVE = Claim("a", "b", 0.05)


def test_difference_is_taken_seed_by_seed() -> None:
    # Seed 2 was run of one method only.
    found = difference({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.5})

    assert found is not None
    assert found.mean == pytest.approx(0.15)
    assert found.spread == pytest.approx(0.1)
    assert found.is_clear


@pytest.mark.parametrize(
    ("claim", "a", "b", "expected"),
    [
        (ABOVE, {0: 0.7, 1: 0.8}, {0: 0.5, 1: 0.61}, "as in the paper"),
        (ABOVE, {0: 0.5, 1: 0.6}, {0: 0.7, 1: 0.81}, "the other way round"),
        (ABOVE, {0: 0.7, 1: 0.5}, {0: 0.6, 1: 0.6}, "cannot be told apart"),
        # The mean difference is its spread: within it.
        (ABOVE, {0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.5}, "cannot be told apart"),
        (ABOVE, {0: 0.6}, {0: 0.5}, "same order, of one run each"),
        (ABOVE, {0: 0.4}, {0: 0.5}, "other order, of one run each"),
        (ABOVE, {0: 0.4}, {1: 0.5}, "not run"),
        (ABOVE, {}, {0: 0.5}, "not run"),
        (
            Claim("a", "b", 0.004),
            {0: 0.7, 1: 0.5},
            {0: 0.6, 1: 0.6},
            "no clear difference, as in the paper",
        ),
        (
            Claim("a", "b", 0.0),
            {0: 0.7, 1: 0.8},
            {0: 0.5, 1: 0.6},
            "a difference that the paper has not",
        ),
        (Claim("a", "b", 0.0), {0: 0.7}, {0: 0.5}, "other order, of one run each"),
        (ABOVE, {0: 0.5}, {0: 0.504}, "no difference, of one run each"),
    ],
)
def test_verdict(
    claim: Claim, a: dict[int, float], b: dict[int, float], expected: str
) -> None:
    assert verdict(claim, difference(a, b)) == expected


def test_sentences_count_and_name_the_higher_first() -> None:
    claims = [ABOVE, Claim("b", "c", 0.1), Claim("a", "d", 0.1)]
    runs = {
        "a": {0: 0.7, 1: 0.8},
        "b": {0: 0.5, 1: 0.61},
        "c": {0: 0.6, 1: 0.7},
    }

    assert order_sentences("here", claims, runs) == [
        "here: 3 comparisons: 1 as in the paper; 1 the other way round; 1 not run.",
        "- as in the paper: *a* 0.195 above *b*.",
        "- the other way round: *c* 0.095 above *b*.",
    ]
    assert order_sentences("here", claims, {}) == ["here: not run."]


def test_lengths_of_strokes_and_borders() -> None:
    # A stroke of 3 x 8 pixels; a square of 10 x 10 that touches no border, whose 40
    # edges are taken for a line of any direction.
    labels = np.zeros((30, 30), np.uint8)
    labels[3:6, 5:13] = 2
    complete = np.ones((30, 30), np.uint8)
    complete[10:20, 10:20] = 2

    assert stroke_length({"a": labels}) == 8
    assert outline_length({"a": complete}) == pytest.approx(40 * np.pi / 4)


def test_label_maps_are_kept_as_text() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)

    assert np.array_equal(from_png(as_png(labels, 1)), labels)
    assert from_png(as_png(labels, 0.5)).shape == (2, 3)


def test_report_tells_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    plans = plans_as_json()
    plan, decoder_plan = plans["balancing"]["glas"], plans["decoders"]["glas"]
    # On `glas` mini-batch is above none of sparse labels; nothing was run on `adp`.
    overall = {"none": (0.60, 0.61), "instance": (0.6, 0.65), "mini-batch": (0.7, 0.72)}
    cells = [
        cell_run(plan, way, seed, overall[way][seed])
        for way in BALANCINGS
        for seed in (0, 1)
    ]
    other_plan = plan | {"steps": 1}
    ignored = cell_run(other_plan, "none", 0, 0.111)
    losses = {"vgg-fcn-1": (0.6, 0.62), "vgg-fcn-2": (0.5, 0.5)}
    content = {
        "device": "cpu",
        "machine": MACHINE,
        "balancing": [*cells, ignored],
        "decoders": [
            decoder_run(decoder_plan, row, seed, loss)
            for row, both in losses.items()
            for seed, loss in enumerate(both)
        ],
    }

    path = write_report(tmp_path, content, plans, tmp_path / "no boxes.json")

    text = path.read_text(encoding="utf-8")
    assert "0.111" not in text
    assert "| **overall** | 0.605<br><sub>0.600-0.610</sub> |" in text
    assert "as in the paper: *sparse, mini-batch* 0.105 above *sparse, none*" in text
    assert "cannot be told apart: *sparse, instance* 0.020 above" in text
    assert "Balancing (Bokhorst 2018), adp: not run." in text
    assert "Not run: there are no results of `benchmarks.boxes` here." in text
    assert "as in the paper: *vgg-fcn-1* 0.110 above *vgg-fcn-2*" in text
    assert "| vgg-fcn (final) | 0.697 | not run | not run | not run |" in text
    for name in ("balancing", "balancing-curves", "balancing-glas", "decoders"):
        picture = (tmp_path / "reproduction" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert f"(reproduction/{name}.png)" in text
    assert "balancing-adp.png" not in text


def test_report_of_boxes_leaves_out_what_learned_too_little(tmp_path: Path) -> None:
    results = {
        "machine": MACHINE,
        "weights": "none",
        "masks": [
            mask_run("box", [0.5, 0.7]),
            mask_run("cam+crf", [0.8, 0.6]),
            mask_run("acol+crf", [0.4, 0.4]),
        ],
        "networks": [
            network_run("unet", "full", 0.1),
            network_run("unet", "box", 0.0),
            network_run("deeplabv3", "full", 0.7),
            network_run("deeplabv3", "acol+crf", None),
        ],
    }
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(results), encoding="utf-8")
    content = {"device": "cpu", "machine": MACHINE, "balancing": [], "decoders": []}

    docs = tmp_path / "new" / "docs"
    text = write_report(docs, content, plans_as_json(), boxes).read_text("utf-8")

    masks, unet, deeplab = columns(results)
    assert masks.runs["cam+crf"] == {0: pytest.approx(0.7)}
    assert [kind.learned_too_little for kind in (masks, unet, deeplab)] == [
        False,
        True,
        False,
    ]
    assert "same order, of one run each: *CAM + CRF* 0.100 above *box*" in text
    assert "other order, of one run each: *box* 0.200 above *ACoL + CRF*" in text
    assert "even complete labels lead to a Dice of 0.100 only" in text
    assert "*complete labels (ceiling)* 0.700 above *ACoL + CRF*" in text


def test_dense_images_have_all_classes_and_no_strokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_class_set(tmp_path / "glas")
    monkeypatch.setattr("benchmarks._reproduce_sets.N_DENSE", 2)

    sets = read_label_sets(folder, seed=0)

    sparse, dense = sets.of("combined")
    assert len(dense) == 2
    assert sparse.keys() | dense.keys() == sets.complete.keys()
    assert not sparse.keys() & dense.keys()
    assert sets.of("sparse") == (sparse, {})
    assert sets.of("dense")[0] == {}
    for labels in dense.values():
        assert labels.all()
    everything = np.concatenate([labels.ravel() for labels in dense.values()])
    assert {*np.unique(everything)} == {1, 2}


def test_cell_learns_a_mixed_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_class_set(tmp_path / "glas")
    monkeypatch.setattr("benchmarks._reproduce_sets.N_DENSE", 2)
    plan = PLANS["cpu"]["glas"]
    recipe = replace(plan.recipe, patch_px=16, batch=4, learning_rate=5e-3, warm_up=0)
    plan = replace(plan, recipe=recipe, steps=20, scale=0.25)

    run = train_cell(folder, "combined", "mini-batch", 0, plan)

    # Bright and dark halves: to guess would be a Dice of about 0.5.
    assert run["present_dice"] > 0.8
    assert [step for step, _, _ in run["curve"]] == [5, 10, 15, 20]
    truth = from_png(run["truth"])
    assert np.mean(truth == from_png(run["picture"])) > 0.8


MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "usable_cores": 2,
    "torch_threads": 1,
    "gpu": None,
    "system": "Linux",
    "versions": {"python": "3.11"},
}

RUN = {"seconds": 60.0, "workers": 2, "source": "abc", "command": "python -m x"}


def plans_as_json() -> dict[str, dict[str, Any]]:
    """Return the plans of a CPU as results have them."""
    decoders = DECODER_PLANS["cpu"]["glas"].to_json() | {"encoder_weights": "none"}
    return {
        "balancing": {name: plan.to_json() for name, plan in PLANS["cpu"].items()},
        "decoders": {"glas": decoders},
    }


def cell_run(
    plan: dict[str, Any], balancing: str, seed: int, overall: float
) -> dict[str, Any]:
    """Return a run on sparse labels of `glas`."""
    shares = {"background": 0.5, "gland": 0.5}
    map_ = as_png(np.ones((8, 8), np.uint8), 1)
    return RUN | {
        "set": "glas",
        "labels": "sparse",
        "balancing": balancing,
        "seed": seed,
        "plan": plan,
        "dice": {"background": overall, "gland": overall},
        "in_truth": {"background": True, "gland": True},
        "present_dice": overall,
        "pixel_accuracy": overall,
        "curve": [[10, 0.7, 0.5], [20, 0.6, None]],
        "effort": {
            "sparse_images": 16,
            "dense_images": 4,
            "stroke_px": 100.0,
            "outline_px": 110.0,
            "sparse_shares": shares,
            "dense_shares": shares,
        },
        "picture": map_,
        "truth": map_,
        "classes": ClassTable.from_values((1, 2)).to_json(),
    }


def decoder_run(
    plan: dict[str, Any], row: str, seed: int, loss: float
) -> dict[str, Any]:
    """Return a run of a decoder with one loss on all parts."""
    parts = ("train", "validation", "test")
    return RUN | {
        "set": "glas",
        "row": row,
        "seed": seed,
        "plan": plan,
        "loss": dict.fromkeys(parts, loss),
        "dice": dict.fromkeys(parts, 0.8),
        "curve": [[10, 0.7, 0.5]],
        "learned_s": 10.0,
        "validation_images": ["a", "b"],
    }


def two_class_set(folder: Path) -> Path:
    """Write a set of five images and a test image whose right halves are bright."""
    random = np.random.default_rng(0)
    truth = np.ones((64, 64), np.uint8)
    truth[:, 32:] = 2
    strokes = np.zeros_like(truth)
    strokes[20:23, 4:60] = truth[20:23, 4:60]
    for name in ("train/a", "train/b", "train/c", "train/d", "train/e", "test/f"):
        part, stem = name.split("/")
        noisy = 120 * truth[..., None] - 60 + random.integers(0, 40, (64, 64, 3))
        for kind, pixels in (
            ("images", noisy.astype(np.uint8)),
            ("dense", truth),
            ("strokes_1pct", strokes),
        ):
            file = folder / part / kind / f"{stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    write_class_table(folder / "classes.json", ClassTable.from_values((1, 2)))
    return folder


def mask_run(row: str, dice: list[float]) -> dict[str, Any]:
    """Return a run of the benchmark of boxes that made masks."""
    scores = {"dice": {"liver": [1.0], "liver tumour": dice}}
    return RUN | {"set": "ircadb", "seed": 0, "rows": {row: scores}}


def network_run(network: str, row: str, dice: float | None) -> dict[str, Any]:
    """Return a run of the benchmark of boxes that trained a network."""
    return RUN | {
        "set": "ircadb",
        "seed": 0,
        "row": row,
        "network": network,
        "steps": 100,
        "preset": "light",
        "recipe": "live",
        "dice": {"background": 1.0, "liver": 1.0, "liver tumour": dice},
    }
