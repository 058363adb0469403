"""Predictions by a dask.distributed cluster, equal to the bit to those of one process.

Workers are threads of this process where the test is quick, else processes.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr

from benchmarks._files_large import loadable
from napari_sparseseg.errors import ClusterError, ImageError, OptionError, OutputError
from napari_sparseseg.files import PredictionStarted, iter_predict_file, predict_file
from napari_sparseseg.networks.model import SegmentationModel
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.prediction import cluster
from napari_sparseseg.prediction.large import ChunkDone
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.samples import tissue_phantom
from tests.prediction.test_predictor import random_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

distributed = pytest.importorskip("distributed")

TILE = 16


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    return tissue_phantom(0, (150, 203)).image


@pytest.fixture(scope="module")
def model(tissue: NDArray[np.uint8]) -> SegmentationModel:
    return loadable(random_network(tissue, 0.5))


@pytest.fixture
def image(tmp_path: Path, tissue: NDArray[np.uint8]) -> Path:
    zarr.create_array(tmp_path / "image.zarr", data=tissue, chunks=(64, 64, 3))
    return tmp_path / "image.zarr"


@pytest.fixture(scope="module")
def threads() -> Iterator[Any]:
    """Return a cluster of two threads."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs=cluster.UNSEEN,
    ) as local:
        yield local


@pytest.fixture
def address(threads: Any) -> Iterator[str]:
    """Return the address of a cluster that has loaded nothing yet."""
    n_threads, kept = torch.get_num_threads(), cluster._predictor
    yield threads.scheduler_address
    torch.set_num_threads(n_threads)
    kept.cache_clear()


def labels_of(store: Path) -> NDArray[Any]:
    return np.asarray(zarr.open_array(store / "0", mode="r")[...])


def expected_labels(
    model: SegmentationModel, tissue: NDArray[np.uint8]
) -> NDArray[Any]:
    return predict_image(model, tissue, PredictOptions(tile=TILE))[0]


class TestCluster:
    def test_gives_the_labels_of_one_process_and_loads_the_model_once(
        self,
        tmp_path: Path,
        image: Path,
        address: str,
        model: SegmentationModel,
        tissue: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "out.ome.zarr"
        events = list(
            iter_predict_file(model, image, out, tile=TILE, scheduler=address)
        )
        done = [each for each in events if isinstance(each, ChunkDone)]
        assert len({each.region for each in done}) == len(done) == 35
        np.testing.assert_array_equal(labels_of(out), expected_labels(model, tissue))
        # Workers that are threads of one process share what they loaded.
        assert cluster._predictor.cache_info().misses == 1
        assert not list(out.glob("*.safetensors"))

    def test_smooths_across_planes_as_one_process_does(
        self, tmp_path: Path, address: str, tissue: NDArray[np.uint8]
    ) -> None:
        planes = np.stack([np.roll(tissue[:80, :90, 0], 5 * z) for z in range(20)])
        zarr.create_array(tmp_path / "volume.zarr", data=planes, chunks=(1, 80, 90))
        model = loadable(random_network(planes[0], 0.5))
        for name, scheduler in (("one", None), ("many", address)):
            predict_file(
                model,
                tmp_path / "volume.zarr",
                tmp_path / f"{name}.ome.zarr",
                smooth_planes=1.0,
                tile=32,
                scheduler=scheduler,
            )
        one, many = (labels_of(tmp_path / f"{n}.ome.zarr") for n in ("one", "many"))
        np.testing.assert_array_equal(one, many)

    def test_goes_on_where_one_process_stopped(
        self,
        tmp_path: Path,
        image: Path,
        address: str,
        model: SegmentationModel,
        tissue: NDArray[np.uint8],
    ) -> None:
        out = tmp_path / "out.ome.zarr"
        alone = iter_predict_file(model, image, out, tile=TILE)
        for _ in range(6):
            next(alone)
        alone.close()
        rest = list(iter_predict_file(model, image, out, tile=TILE, scheduler=address))
        assert sum(isinstance(each, ChunkDone) for each in rest) == 35 - 5
        np.testing.assert_array_equal(labels_of(out), expected_labels(model, tissue))

    def test_that_cannot_predict_says_why(
        self,
        tmp_path: Path,
        image: Path,
        address: str,
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "out.ome.zarr"
        monkeypatch.setattr(cluster, "_examine", lambda *_: ("0.1.0", False))
        monkeypatch.setattr(
            "napari_sparseseg.io.model_file.versions",
            lambda: {"napari-sparseseg": "0.1.0"},
        )
        with pytest.raises(OutputError, match="does not see"):
            predict_file(model, image, out, scheduler=address)
        monkeypatch.setattr(cluster, "_examine", lambda *_: ("0.0.1", True))
        with pytest.raises(ClusterError, match=r"has version 0\.0\.1"):
            predict_file(model, image, out, scheduler=address)

        def fail(*_: object) -> None:
            raise ImageError("image.zarr is damaged.")

        monkeypatch.undo()
        monkeypatch.setattr(cluster, "_predictor", fail)
        with pytest.raises(ImageError, match="is damaged"):
            predict_file(model, image, out, scheduler=address)


@pytest.mark.parametrize(
    ("name", "number"),
    [(3, 3), ("3", 3), ("gpu-12", 12), ("tcp://10.0.0.7:40331", None), ("host", None)],
)
def test_workers_are_numbered_by_their_names(name: object, number: int | None) -> None:
    assert cluster._number_in(name) == number


def test_a_slide_without_its_glass_is_that_of_one_process(
    tmp_path: Path, data_dir: Path, address: str
) -> None:
    pytest.importorskip("openslide")
    slide = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
    pixels = tissue_phantom(0, (128, 128)).image
    groups = NetworkSpec("unet", {"filters": 2, "levels": 2, "norm": "group"})
    made = loadable(random_network(pixels, 0.1, groups))
    model = SegmentationModel(replace(made.info, network=groups), made.parts)
    for name, scheduler in (("one", None), ("many", address)):
        events = iter_predict_file(
            model,
            slide,
            tmp_path / f"{name}.ome.zarr",
            tile=32,
            scheduler=scheduler,
        )
        started = next(events)
        assert isinstance(started, PredictionStarted)
        assert started.n_glass
        for _ in events:
            pass
    one, many = (labels_of(tmp_path / f"{n}.ome.zarr") for n in ("one", "many"))
    assert len(np.unique(one)) > 2
    np.testing.assert_array_equal(one, many)


class TestNoCluster:
    def test_at_an_address_is_said(
        self,
        tmp_path: Path,
        image: Path,
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(cluster, "ANSWER_S", 0.2)
        with pytest.raises(OptionError, match="no scheduler that answers at tcp"):
            predict_file(
                model,
                image,
                tmp_path / "out.ome.zarr",
                scheduler="tcp://127.0.0.1:9",
            )

    def test_with_certificates_that_are_not_there_is_said(
        self, tmp_path: Path, image: Path, model: SegmentationModel
    ) -> None:
        missing = tmp_path / "ca.pem"
        with pytest.raises(OptionError, match="certificates"):
            predict_file(
                model,
                image,
                tmp_path / "out.ome.zarr",
                scheduler="tls://127.0.0.1:9",
                tls=cluster.Tls(missing, missing, missing),
            )


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(
    tmp_path: Path,
    image: Path,
    model: SegmentationModel,
    tissue: NDArray[np.uint8],
) -> None:
    out = tmp_path / "out.ome.zarr"
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs=cluster.UNSEEN,
    ) as local:
        with distributed.Client(local) as client:
            pids = client.run(os.getpid)
        assert len(pids) == 2
        n_done = 0
        for event in iter_predict_file(
            model, image, out, tile=TILE, scheduler=local.scheduler_address
        ):
            n_done += isinstance(event, ChunkDone)
            if n_done == 3 and pids:
                os.kill(pids.popitem()[1], signal.SIGKILL)
    assert len(pids) == 1
    np.testing.assert_array_equal(labels_of(out), expected_labels(model, tissue))


@pytest.mark.slow
def test_processes_of_this_machine_give_the_same(
    tmp_path: Path,
    image: Path,
    model: SegmentationModel,
    tissue: NDArray[np.uint8],
) -> None:
    out = tmp_path / "out.ome.zarr"
    predict_file(model, image, out, tile=TILE, workers=2)
    np.testing.assert_array_equal(labels_of(out), expected_labels(model, tissue))
