"""A generated CT slice of an abdomen with liver tumours, and its exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AIR: Final = 1
FAT: Final = 2
MUSCLE: Final = 3
BONE: Final = 4
VESSEL: Final = 5
KIDNEY: Final = 6
SPLEEN: Final = 7
DIGESTIVE: Final = 8
LIVER: Final = 9
TUMOUR: Final = 10

MIN_SIDE_PX: Final = 128

#: Height and width in mm of what a picture shows at least.
FIELD_MM: Final = (270.0, 370.0)

#: Hounsfield units of structures, in the portal venous phase.
GAS_HU: Final = -980.0
FAT_HU: Final = -102.0
MUSCLE_HU: Final = 58.0
LIVER_HU: Final = 112.0

#: Standard deviation of the noise, in HU, in the middle of the body.
NOISE_HU: Final = 15.0

_Floats = NDArray[np.float32]
_Mask = NDArray[np.bool_]
_Point = tuple[float, float]


@dataclass(frozen=True)
class _Slice:
    """What has been drawn so far, all arrays (y, x).

    ``y`` and ``x`` are mm from the middle of the body, to the back and to the left of
    the patient, who lies on the back and is seen from the feet.
    """

    y: _Floats
    x: _Floats
    mm_per_px: float
    hu: _Floats
    organs: NDArray[np.uint8]
    rng: np.random.Generator

    def blob(
        self, centre: _Point, axes: _Point, *, tilt: float = 0.0, waviness: float = 0.0
    ) -> _Floats:
        """Give the depth in mm below a wavy ellipse, negative outside of it.

        `centre` and the semi-`axes` are (y, x) in mm, `tilt` turns the x axis of the
        ellipse towards y by so many rad. Each lies and is a little otherwise with every
        patient.
        """
        jitter = self.rng.uniform(-0.05, 0.05, 4)
        y = self.y - (centre[0] + axes[0] * jitter[0])
        x = self.x - (centre[1] + axes[1] * jitter[1])
        along = (x * np.cos(tilt) + y * np.sin(tilt)) / (axes[1] * (1 + jitter[2]))
        across = (y * np.cos(tilt) - x * np.sin(tilt)) / (axes[0] * (1 + jitter[3]))
        radius = np.hypot(along, across)
        if waviness:
            radius /= self._ripple(np.arctan2(across, along), waviness)
        down, right = np.gradient(radius, self.mm_per_px)
        slope = np.maximum(np.hypot(down, right), 0.5 / max(axes))
        return np.asarray((1 - radius) / slope, np.float32)

    def _ripple(self, theta: _Floats, waviness: float) -> _Floats:
        """Draw harmonics around 1 as a function of an angle in rad."""
        ripple = np.ones_like(theta)
        for order in range(2, 6):
            height, phase = self.rng.normal(), self.rng.uniform(0, 2 * np.pi)
            ripple += waviness * height / order * np.cos(order * theta + phase)
        return np.maximum(ripple, 0.3)

    def paint(
        self, depth: _Floats, hu: _Floats | float, organ: int, softness_mm: float = 0.0
    ) -> None:
        """Lay `hu` over what lies deeper than 0, with an edge of at least a pixel."""
        width = max(softness_mm, self.mm_per_px)
        cover = np.clip(0.5 + depth / width, 0, 1)
        self.hu[...] += cover * (hu - self.hu)
        self.organs[depth > 0] = organ

    def texture(self, sigma_mm: float) -> _Floats:
        """Give smooth noise of unit variance."""
        return _noise(self.rng, self.organs.shape, sigma_mm / self.mm_per_px)


def mm_per_px(shape: tuple[int, int]) -> float:
    """Give the size of a pixel at which the body fills a picture of (y, x) pixels."""
    return max(mm / px for mm, px in zip(FIELD_MM, shape, strict=True))


def render(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw an axial slice through liver, spleen and kidneys, and its truth.

    Organs are wavy ellipses, cut by each other and by the wall of the abdomen; edges
    are blurred by the volume of a pixel and the optics of the scanner. The noise is
    correlated over neighbouring pixels and weaker towards the skin. Tumours of the
    liver are darker than it, have soft edges and do not touch each other. Spleen,
    stomach, gall bladder and muscle share the intensities of liver and tumours, so
    that the intensity of a pixel alone does not tell its organ.

    Parameters
    ----------
    shape
        (y, x), at least ``MIN_SIDE_PX`` each.
    rng
        Source of all randomness.

    Returns
    -------
    image
        (y, x) int16, Hounsfield units.
    organs
        (y, x) uint8 with the organs of this module, each present. Vessels in the liver
        belong to it; what lies in stomach and bowel to these.
    """
    scene = _empty(shape, rng)
    _lay_table(scene)
    cavity = _build_wall(scene)
    _put_ribs(scene)
    _put_liver(scene, cavity)
    _put_left_organs(scene, cavity)
    for side in (-1, 1):
        _put_kidney(scene, side)
    _put_spine(scene)
    _put_vessels(scene)
    _clear_away_fragments(scene)
    _vein_liver(scene)
    _grow_tumours(scene)
    return _scan(scene), scene.organs


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float
) -> _Floats:
    smooth = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma_px, mode="wrap"
    )
    smooth -= smooth.mean()
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _empty(shape: tuple[int, int], rng: np.random.Generator) -> _Slice:
    size = mm_per_px(shape)
    y, x = (
        (np.arange(side, dtype=np.float32) - (side - 1) / 2) * size for side in shape
    )
    y, x = np.meshgrid(y + rng.uniform(0, 8), x + rng.uniform(-6, 6), indexing="ij")
    hu = np.full(shape, -1000, np.float32)
    return _Slice(y, x, size, hu, np.full(shape, AIR, np.uint8), rng)


def _lay_table(scene: _Slice) -> None:
    """Draw the thin shell of the table, which is air like all around the body."""
    shell = 1.0 - np.abs(scene.y - 125 + (scene.x / 60) ** 2)
    scene.paint(np.minimum(shell, 130 - np.abs(scene.x)), 100, AIR)


def _build_wall(scene: _Slice) -> _Floats:
    """Draw skin, fat and muscle, and give the depth in the cavity in mm."""
    body = scene.blob((0, 0), (109, 162), waviness=0.02)
    scene.paint(body, 5, MUSCLE)
    scene.paint(body - 2.2, FAT_HU + 6 * scene.texture(3), FAT)
    muscle = scene.blob((2, 0), (88, 148), waviness=0.02)
    muscle = np.minimum(muscle, body - 7)
    strands = np.clip(scene.texture(2.5) - 1.2, 0, 1)
    scene.paint(muscle, MUSCLE_HU - 90 * strands, MUSCLE)
    cavity = np.minimum(scene.blob((-8, 0), (74, 139), waviness=0.02), muscle - 6)
    back = scene.blob((72, 0), (32, 62))
    cavity = np.minimum(cavity, -back)
    scene.paint(cavity, FAT_HU + 10 * scene.texture(3), FAT)
    return cavity


def _put_ribs(scene: _Slice) -> None:
    for side in (-1, 1):
        for angle in (-0.75, -0.3, 0.12, 0.5, 0.86):
            theta = angle + scene.rng.uniform(-0.08, 0.08)
            centre = (84 * np.sin(theta), side * 142 * np.cos(theta))
            along = np.arctan2(-84 * np.cos(theta), side * 142 * np.sin(theta))
            rib = scene.blob(centre, (3.6, scene.rng.uniform(6, 11)), tilt=float(along))
            _put_bone(scene, rib, 2.0, 260)


def _put_bone(scene: _Slice, depth: _Floats, shell_mm: float, marrow_hu: float) -> None:
    scene.paint(depth, 620, BONE)
    marrow = marrow_hu + 40 * scene.texture(1.5)
    scene.paint(depth - shell_mm, marrow, BONE, softness_mm=2.0)


def _put_liver(scene: _Slice, cavity: _Floats) -> None:
    right = scene.blob((-6, -78), (70, 60), tilt=0.1, waviness=0.04)
    left = scene.blob((-44, -14), (27, 58), tilt=-0.08, waviness=0.05)
    liver = np.minimum(np.maximum(right, left), cavity - 2)
    scene.paint(liver, LIVER_HU + 4 * scene.texture(3), LIVER)
    fissure = scene.blob((-24, -22), (10, 3), tilt=1.2)
    scene.paint(np.minimum(fissure, liver + 4), FAT_HU + 40, FAT, softness_mm=3)
    bladder = scene.blob((-2, -31), (11, 9), tilt=0.5)
    scene.paint(bladder + 1.5, 70, DIGESTIVE)
    scene.paint(bladder, 12, DIGESTIVE)


def _put_left_organs(scene: _Slice, cavity: _Floats) -> None:
    """Put the spleen, the stomach, the pancreas and loops of bowel."""
    spleen = scene.blob((18, 112), (42, 19), tilt=0.25, waviness=0.05)
    spleen = np.minimum(spleen, cavity - 2)
    scene.paint(spleen, 118 + 4 * scene.texture(3), SPLEEN)
    pancreas = scene.blob((2, 30), (9, 36), tilt=-0.15, waviness=0.12)
    lobules = np.clip(scene.texture(2) - 0.6, 0, 1)
    scene.paint(pancreas, 92 - 80 * lobules, DIGESTIVE)
    _put_hollow(scene, cavity, (-36, 64), (27, 32), 4.5)
    for centre in ((-42, 106), (-14, 98), (12, 84), (8, 58)):
        side = scene.rng.uniform(10, 15)
        _put_hollow(scene, cavity, centre, (side, side), 2.5)


def _put_hollow(
    scene: _Slice, cavity: _Floats, centre: _Point, axes: _Point, wall_mm: float
) -> None:
    """Put a wall around fluid, above which there is gas."""
    outside = scene.blob(centre, axes, waviness=0.08)
    outside = np.minimum(outside, cavity - 2)
    # Behind the liver and the spleen, which it only pushes.
    outside[np.isin(scene.organs, (LIVER, SPLEEN))] = -scene.mm_per_px
    inside = outside - wall_mm
    scene.paint(outside, 82, DIGESTIVE)
    scene.paint(inside, 25 + 22 * scene.texture(2.5), DIGESTIVE)
    level = centre[0] + axes[0] * scene.rng.uniform(-0.7, 0.5)
    scene.paint(np.minimum(inside, level - scene.y), GAS_HU, DIGESTIVE)


def _put_kidney(scene: _Slice, side: int) -> None:
    """Put a bright cortex, a darker middle, and fat where vessels enter."""
    centre = (36.0, side * 60.0)
    kidney = scene.blob(centre, (28, 21), tilt=side * 0.35, waviness=0.04)
    scene.paint(kidney + 5, FAT_HU + 8 * scene.texture(3), FAT)
    pyramids = 34 * np.clip(scene.texture(5), -1, 1)
    scene.paint(kidney, 195, KIDNEY)
    scene.paint(kidney - 5, 165 + pyramids, KIDNEY, softness_mm=3)
    hilum = scene.blob((centre[0] - 6, side * 42.0), (7, 15))
    scene.paint(hilum, FAT_HU + 25, FAT, softness_mm=3)


def _put_spine(scene: _Slice) -> None:
    for side in (-1, 1):
        psoas = scene.blob((42, side * 29.0), (14, 9), waviness=0.05)
        scene.paint(psoas, MUSCLE_HU, MUSCLE)
        process = scene.blob((70, side * 26.0), (5, 15), tilt=side * 0.35)
        _put_bone(scene, process, 2.0, 260)
    _put_bone(scene, scene.blob((88, 0), (14, 4)), 1.5, 280)
    _put_bone(scene, scene.blob((67, 0), (16, 18)), 3.0, 300)
    _put_bone(scene, scene.blob((40, 0), (19, 24), waviness=0.03), 2.5, 200)
    # The cord and its fluid; counted to the muscles, which are as bright.
    scene.paint(scene.blob((66, 0), (8.5, 10.5)), 28, MUSCLE)


def _put_vessels(scene: _Slice) -> None:
    for centre, axes, hu in (
        ((11, 10), (10.5, 10.5), 188),
        ((12, -21), (9, 13), 142),
        ((-10, -2), (6, 15), 168),
    ):
        vessel = scene.blob(centre, axes, waviness=0.02)
        scene.paint(vessel + 2.5, FAT_HU + 20, FAT, softness_mm=2)
        scene.paint(vessel, hu, VESSEL)


def _clear_away_fragments(scene: _Slice) -> None:
    """Keep one piece of the liver where other organs have cut off more."""
    pieces, _ = ndimage.label(scene.organs == LIVER, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    fragments = (pieces > 0) & (pieces != sizes.argmax())
    scene.hu[fragments] = FAT_HU
    scene.organs[fragments] = FAT


def _room(mask: _Mask, size_mm: float) -> _Floats:
    """Give the distance in mm to what is not in `mask`, which ends at the image."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.asarray(distance * size_mm, np.float32)


def _vein_liver(scene: _Slice) -> None:
    """Draw vessels of the liver, cut across and along."""
    room = _room(scene.organs == LIVER, scene.mm_per_px)
    for _ in range(22):
        spots = np.argwhere(room > 8)
        row, column = spots[scene.rng.integers(len(spots))]
        centre = (float(scene.y[row, column]), float(scene.x[row, column]))
        thickness = scene.rng.uniform(1.2, 2.8)
        length = thickness * scene.rng.choice([1.2, 1.6, 4.5])
        tilt = scene.rng.uniform(-0.9, 0.3)
        vein = scene.blob(centre, (thickness, length), tilt=tilt)
        scene.paint(np.minimum(vein, room - 2), 160, LIVER)


def _grow_tumours(scene: _Slice) -> None:
    """Put two to four tumours into the liver: darker, some with a necrotic core."""
    for number in range(scene.rng.integers(2, 5)):
        radius = scene.rng.uniform(16, 23) if number == 0 else scene.rng.uniform(8, 14)
        room = _room(scene.organs == LIVER, scene.mm_per_px)
        # The waves of the outline reach beyond its radius.
        radius = min(radius, (float(room.max()) - scene.mm_per_px) / 1.5)
        spots = np.argwhere(room > 1.4 * radius + scene.mm_per_px)
        row, column = spots[scene.rng.integers(len(spots))]
        centre = (float(scene.y[row, column]), float(scene.x[row, column]))
        stretch = scene.rng.uniform(0.85, 1.0)
        tumour = scene.blob(
            centre,
            (radius * stretch, radius),
            tilt=scene.rng.uniform(0, np.pi),
            waviness=0.10,
        )
        tumour = np.minimum(tumour, room - 2 * scene.mm_per_px)
        hu = scene.rng.uniform(58, 80) + 7 * scene.texture(4)
        scene.paint(tumour, hu, TUMOUR, softness_mm=3.5)
        if scene.rng.random() < 0.4:
            scene.paint(tumour - 0.55 * radius, 38, TUMOUR, softness_mm=5)


def _scan(scene: _Slice) -> NDArray[np.int16]:
    """Blur by the scanner and add its noise, weaker in the air and near the skin."""
    blurred = ndimage.gaussian_filter(scene.hu, 0.6)
    centrality = np.exp(-((scene.y / 110) ** 2) - (scene.x / 165) ** 2)
    grain = 0.85 * _noise(scene.rng, blurred.shape, 0.7)
    grain += 0.53 * _noise(scene.rng, blurred.shape, 1.6)
    noisy = blurred + NOISE_HU * (0.4 + 0.6 * centrality) * grain
    return np.asarray(np.rint(np.maximum(noisy, -1024)), np.int16)
