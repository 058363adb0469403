"""A generated tissue picture in haematoxylin and eosin, with its exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKGROUND: Final = 1
STROMA: Final = 2
EPITHELIUM: Final = 3
LYMPHOCYTES: Final = 4

UM_PER_PX: Final = 0.7
MIN_SIDE_PX: Final = 128

# Unit absorbance of haematoxylin and eosin in R, G, B: the reference matrix of
# Macenko et al., "A method for normalizing histology slides" (ISBI 2009).
_ABSORBANCE: Final = np.array(
    [[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], dtype=np.float32
)

_Floats = NDArray[np.float32]
_Mask = NDArray[np.bool_]
_Window = tuple[slice, slice]


@dataclass(frozen=True)
class _Canvas:
    """Stain concentrations and truth of one picture, all (y, x).

    ``grain`` and ``cloud`` are fine and coarse noise of unit variance.
    """

    hematoxylin: _Floats
    eosin: _Floats
    truth: NDArray[np.uint8]
    grain: _Floats
    cloud: _Floats

    @property
    def shape(self) -> tuple[int, int]:
        return self.truth.shape[0], self.truth.shape[1]


@dataclass(frozen=True)
class _Nucleus:
    """An ellipse: centre (y, x), semi-axes in px, angle of the long one in rad."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float
    density: float
    chromatin: float


@dataclass(frozen=True)
class _Outline:
    """A closed wavy curve: an ellipse whose radius has a few harmonics.

    ``centre`` is (y, x) and ``radius`` its mean radius, in px; ``waves`` holds one
    row (relative amplitude, phase) for each harmonic from the second on.
    """

    centre: tuple[float, float]
    radius: float
    stretch: float
    tilt: float
    waves: _Floats

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        centre: tuple[float, float],
        radius: float,
        waviness: float,
    ) -> _Outline:
        orders = np.arange(2, 8)
        waves = np.stack(
            [
                waviness * rng.normal(size=orders.size) / orders,
                rng.uniform(0, 2 * np.pi, orders.size),
            ],
            axis=1,
        )
        stretch, tilt = rng.uniform(1, 1.25), rng.uniform(0, np.pi)
        return cls(centre, radius, stretch, tilt, waves.astype(np.float32))

    def radius_at(self, theta: _Floats) -> _Floats:
        """Radius in px in the unstretched frame at each angle in rad."""
        orders = np.arange(2, 2 + len(self.waves), dtype=np.float32)
        phase = theta[..., None] * orders + self.waves[:, 1]
        ripple = (self.waves[:, 0] * np.cos(phase)).sum(axis=-1)
        return np.asarray(self.radius * (1 + ripple), dtype=np.float32)

    def window(self, shape: tuple[int, int]) -> _Window:
        """Part of a picture of `shape` that the curve can reach."""
        waviness = float(np.abs(self.waves[:, 0]).sum())
        return _window(self.centre, self.radius * self.stretch * (1 + waviness), shape)

    def depth(self, window: _Window) -> tuple[_Floats, _Floats]:
        """Depth below the curve in px (negative outside), and angle, in `window`."""
        return self.depth_at(*_offsets(self.centre, window))

    def depth_at(self, y: _Floats, x: _Floats) -> tuple[_Floats, _Floats]:
        """Depth in px and angle in rad at offsets (y, x) in px from the centre."""
        along = (y * np.sin(self.tilt) + x * np.cos(self.tilt)) / self.stretch
        across = (y * np.cos(self.tilt) - x * np.sin(self.tilt)) * self.stretch
        theta = np.arctan2(across, along)
        return self.radius_at(theta) - np.hypot(along, across), theta

    def point(self, theta: float, depth: float) -> tuple[float, float]:
        """Give the (y, x) at an angle in rad and a depth below the curve in px."""
        rho = float(self.radius_at(np.array([theta], np.float32))[0]) - depth
        along = rho * np.cos(theta) * self.stretch
        across = rho * np.sin(theta) / self.stretch
        return (
            self.centre[0] + along * np.sin(self.tilt) + across * np.cos(self.tilt),
            self.centre[1] + along * np.cos(self.tilt) - across * np.sin(self.tilt),
        )


def render(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a tissue section and its truth.

    Two stains are laid down structure by structure and become colour by the
    Beer-Lambert law, I = I0 exp(-c A). Nuclei lie in every tissue, single lymphocytes
    in the stroma too, and the goblets of the epithelium are pale, so that the colour
    of a pixel alone does not tell its class.

    Parameters
    ----------
    shape
        (y, x), at least ``MIN_SIDE_PX`` each.
    rng
        Source of all randomness.

    Returns
    -------
    image
        (y, x, 3) uint8.
    truth
        (y, x) uint8 with the four classes of this module, each present.
    """
    canvas = _blank(shape, rng)
    _cut_edge(canvas, rng)
    glands, aggregates = _arrange(canvas.truth == BACKGROUND, rng)
    flow = _flow(canvas, glands, rng)
    _weave_stroma(canvas, flow, rng)
    _tear(canvas, flow, glands + aggregates, rng)
    for gland in glands:
        _paint_gland(canvas, gland, rng)
    _scatter_stromal_nuclei(canvas, flow, rng)
    for aggregate in aggregates:
        _paint_aggregate(canvas, aggregate, rng)
    return _develop(canvas, rng), canvas.truth


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma_px: float
) -> _Floats:
    smooth = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma_px, mode="wrap"
    )
    smooth -= smooth.mean()
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _window(
    centre: tuple[float, float], reach_px: float, shape: tuple[int, int]
) -> _Window:
    rows, cols = (
        slice(
            int(np.clip(np.floor(at - reach_px), 0, side)),
            int(np.clip(np.ceil(at + reach_px) + 1, 0, side)),
        )
        for at, side in zip(centre, shape, strict=True)
    )
    return rows, cols


def _offsets(centre: tuple[float, float], window: _Window) -> tuple[_Floats, _Floats]:
    rows, cols = window
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - centre[0]
    x = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] - centre[1]
    return y, x


def _blank(shape: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    return _Canvas(
        hematoxylin=np.zeros(shape, np.float32),
        eosin=np.zeros(shape, np.float32),
        truth=np.full(shape, STROMA, np.uint8),
        grain=_noise(rng, shape, 1.1),
        cloud=_noise(rng, shape, 14),
    )


def _cut_edge(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Leave glass beyond a wavy edge of the section, on a side drawn by lot."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = canvas.shape
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    beyond = y * np.sin(angle) + x * np.cos(angle)
    beyond = beyond + 0.06 * _noise(rng, canvas.shape, min(canvas.shape) / 14)
    beyond += 0.012 * canvas.cloud
    share = rng.uniform(0.06, 0.12)
    canvas.truth[beyond > np.quantile(beyond, 1 - share)] = BACKGROUND


def _arrange(
    glass: _Mask, rng: np.random.Generator
) -> tuple[list[_Outline], list[_Outline]]:
    """Find room for glands and for lymphoid aggregates.

    One of each comes first, so that both exist in the smallest picture.
    """
    taken = glass.copy()
    largest = 0.2 * min(glass.shape)
    gland_radii = (min(44.0, 0.6 * largest), min(74.0, largest))
    aggregate_radii = (min(20.0, 0.6 * largest), min(40.0, 0.8 * largest))
    glands = list(_fit(taken, gland_radii, 0.10, 1, rng))
    aggregates = list(_fit(taken, aggregate_radii, 0.35, 1, rng))
    count = max(1, round(glass.size / 32_000))
    glands += _fit(taken, gland_radii, 0.10, count - 1, rng)
    aggregates += _fit(taken, aggregate_radii, 0.35, count - 1, rng)
    return glands, aggregates


def _fit(
    taken: _Mask,
    radii_px: tuple[float, float],
    waviness: float,
    count: int,
    rng: np.random.Generator,
) -> Iterator[_Outline]:
    """Yield up to `count` outlines clear of `taken`, which grows by them."""
    for _ in range(count):
        radius = rng.uniform(*radii_px)
        room = ndimage.distance_transform_edt(~taken)
        spots = np.argwhere(room > 1.25 * radius)
        if not len(spots):
            spots = np.argwhere(room > 1.25 * radii_px[0])
            radius = radii_px[0]
        if not len(spots):
            return
        row, col = spots[rng.integers(len(spots))]
        outline = _Outline.draw(rng, (float(row), float(col)), radius, waviness)
        window = outline.window((taken.shape[0], taken.shape[1]))
        taken[window] |= outline.depth(window)[0] > -6
        yield outline


def _flow(
    canvas: _Canvas, glands: list[_Outline], rng: np.random.Generator
) -> tuple[_Floats, _Floats]:
    """Give the direction (y, x) of the fibres: smooth, and around the glands."""
    obstacle = np.zeros(canvas.shape, np.float32)
    for gland in glands:
        window = gland.window(canvas.shape)
        obstacle[window] = np.maximum(obstacle[window], gland.depth(window)[0] > 0)
    stream = 6 * ndimage.gaussian_filter(obstacle, 22) + _noise(rng, canvas.shape, 42)
    down, right = np.gradient(stream)
    # A common direction leaves fewer whorls.
    angle = rng.uniform(0, 2 * np.pi)
    down, right = down + 0.03 * np.sin(angle), right + 0.03 * np.cos(angle)
    length = np.hypot(down, right) + 1e-6
    return right / length, -down / length


def _weave_stroma(
    canvas: _Canvas, flow: tuple[_Floats, _Floats], rng: np.random.Generator
) -> None:
    """Lay eosin in fibres along `flow`.

    Line integral convolution of white noise: Cabral and Leedom, "Imaging vector
    fields using line integral convolution" (SIGGRAPH 1993).
    """
    seed = _noise(rng, canvas.shape, 0.8)
    start: _Floats = np.indices(canvas.shape, dtype=np.float32)
    fibre = seed.copy()
    for sign in (-1.6, 1.6):
        at = start.copy()
        for _ in range(8):
            at += sign * np.stack(
                [ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in flow]
            )
            fibre += ndimage.map_coordinates(seed, at, order=1, mode="reflect")
    fibre /= fibre.std()
    loose = _noise(rng, canvas.shape, 26)
    tissue = canvas.truth == STROMA
    eosin = 0.38 + 0.08 * loose + (0.07 - 0.02 * loose) * fibre + 0.05 * canvas.cloud
    canvas.eosin[tissue] = np.clip(eosin, 0.03, 0.95)[tissue]
    canvas.hematoxylin[tissue] = np.clip(0.08 + 0.02 * fibre, 0, None)[tissue]


def _tear(
    canvas: _Canvas,
    flow: tuple[_Floats, _Floats],
    keep_clear: list[_Outline],
    rng: np.random.Generator,
) -> None:
    """Open a few clefts along the fibres: there is glass below them."""
    room = canvas.truth == STROMA
    for outline in keep_clear:
        window = outline.window(canvas.shape)
        room[window] &= outline.depth(window)[0] < -16
    for _ in range(max(1, room.size // 60_000)):
        spots = np.argwhere(room)
        if not len(spots):
            return
        row, col = spots[rng.integers(len(spots))]
        angle = float(np.arctan2(flow[0][row, col], flow[1][row, col]))
        axes = (rng.uniform(12, 24), rng.uniform(3.5, 6))
        window, radius = _ellipse((float(row), float(col)), axes, angle, canvas.shape)
        gap = (radius + 0.12 * canvas.grain[window] < 1) & room[window]
        canvas.truth[window][gap] = BACKGROUND
        canvas.eosin[window][gap] = 0
        canvas.hematoxylin[window][gap] = 0


def _ellipse(
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    shape: tuple[int, int],
) -> tuple[_Window, _Floats]:
    """Window of an ellipse, and in it the radius as a share of the way to its rim."""
    window = _window(centre, 1.4 * max(axes), shape)
    y, x = _offsets(centre, window)
    along = (y * np.sin(angle) + x * np.cos(angle)) / axes[0]
    across = (y * np.cos(angle) - x * np.sin(angle)) / axes[1]
    return window, np.hypot(along, across)


def _stain_nucleus(canvas: _Canvas, nucleus: _Nucleus) -> _Mask:
    """Lay a nucleus down and return where it lies, (y, x) of its own window."""
    window, radius = _ellipse(nucleus.centre, nucleus.axes, nucleus.angle, canvas.shape)
    cover = np.clip((1.08 - radius) * min(nucleus.axes), 0, 1)
    rim = np.exp(-(((radius - 0.85) / 0.2) ** 2))
    body = nucleus.density * (
        0.8 + 0.3 * rim + nucleus.chromatin * canvas.grain[window]
    )
    below = canvas.hematoxylin[window]
    canvas.hematoxylin[window] = np.maximum(below, cover * body)
    canvas.eosin[window] *= 1 - 0.4 * cover
    return np.asarray(radius < 1)


def _paint_gland(canvas: _Canvas, gland: _Outline, rng: np.random.Generator) -> None:
    """Paint a ring of epithelium around a lumen; one in six misses its lumen."""
    window = gland.window(canvas.shape)
    depth, theta = gland.depth(window)
    height = min(rng.uniform(25, 34), 0.62 * gland.radius)
    if rng.random() < 1 / 6:
        height = 2 * gland.radius
    apex = _Outline.draw(rng, gland.centre, 1.0, 0.2).radius_at(theta) * height
    inside = depth > 0
    lumen = depth > apex
    tissue = inside & ~lumen
    strength = rng.uniform(0.85, 1.15)
    striae = _striae(theta, gland.radius, rng)
    border = np.exp(-(((apex - depth) / 2.5) ** 2))
    canvas.eosin[window] += 0.22 * np.exp(-(((depth + 1) / 1.3) ** 2))
    eosin = 0.40 + 0.08 * striae + 0.20 * border + 0.05 * canvas.cloud[window]
    bluish = 0.20 + 0.04 * striae - 0.10 * np.clip(depth / height, 0, 1)
    canvas.eosin[window][tissue] = (strength * np.clip(eosin, 0.05, 1))[tissue]
    canvas.hematoxylin[window][tissue] = np.clip(bluish, 0, 1)[tissue]
    canvas.truth[window][tissue] = EPITHELIUM
    canvas.truth[window][lumen] = BACKGROUND
    _fill_lumen(canvas, window, lumen, rng)
    _paint_goblets(canvas, gland, height, rng)
    _line_with_nuclei(canvas, gland, height, rng)


def _striae(theta: _Floats, radius_px: float, rng: np.random.Generator) -> _Floats:
    """Borders of the columnar cells: a random function of the angle alone."""
    bins = max(12, round(2 * np.pi * radius_px / 3))
    profile = rng.normal(size=bins)
    turns = (theta / (2 * np.pi)) % 1 * bins
    closed = np.append(profile, profile[0])
    return np.asarray(np.interp(turns, np.arange(bins + 1), closed), np.float32)


def _fill_lumen(
    canvas: _Canvas, window: _Window, lumen: _Mask, rng: np.random.Generator
) -> None:
    """Empty the lumen but for some secretion, which is background all the same."""
    amount = rng.choice([0.0, 0.12, 0.28])
    wisps = np.clip(canvas.cloud[window] + 0.4 * canvas.grain[window], 0, 2)
    canvas.eosin[window][lumen] = (amount * wisps)[lumen]
    canvas.hematoxylin[window][lumen] = (0.3 * amount * wisps)[lumen]


def _paint_goblets(
    canvas: _Canvas, gland: _Outline, height: float, rng: np.random.Generator
) -> None:
    """Paint pale drops of mucin in the upper half of the cells."""
    share = rng.uniform(0.1, 0.7)
    for theta in _around(gland, 13, rng):
        if rng.random() > share:
            continue
        depth = min(height, gland.radius) * rng.uniform(0.62, 0.78)
        centre = gland.point(theta, depth)
        axes = (rng.uniform(5, 8), rng.uniform(3.5, 5))
        window, radius = _ellipse(
            centre, axes, _inward(gland, theta, depth), canvas.shape
        )
        here = (canvas.truth[window] == EPITHELIUM) & (radius < 1)
        texture = 1 + 0.25 * canvas.grain[window]
        canvas.eosin[window][here] = (0.07 * texture)[here]
        canvas.hematoxylin[window][here] = (0.09 * texture)[here]


def _around(
    gland: _Outline, spacing_px: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Angles about `spacing_px` apart on the curve."""
    count = max(6, round(2 * np.pi * gland.radius / spacing_px))
    jitter = rng.uniform(-0.3, 0.3, count)
    angles: NDArray[np.float64] = (np.arange(count) + jitter) * 2 * np.pi / count
    return angles


def _inward(gland: _Outline, theta: float, depth: float) -> float:
    """Angle of the way to the centre, in rad from the x axis towards y."""
    outer, inner = gland.point(theta, depth), gland.point(theta, depth + 1)
    return float(np.arctan2(inner[0] - outer[0], inner[1] - outer[1]))


def _line_with_nuclei(
    canvas: _Canvas, gland: _Outline, height: float, rng: np.random.Generator
) -> None:
    """Put long nuclei at the base of the cells, in a row that wavers."""
    crowding = rng.uniform(0.5, 4)
    density = rng.uniform(1.2, 1.8)
    for theta in _around(gland, 8.5, rng):
        length = rng.uniform(5.5, 8.5)
        depth = min(1.5 + length + abs(rng.normal(0, crowding)), 0.75 * height)
        _stain_nucleus(
            canvas,
            _Nucleus(
                centre=gland.point(theta, depth),
                axes=(length, rng.uniform(3, 4.2)),
                angle=_inward(gland, theta, depth) + rng.normal(0, 0.15),
                density=density * rng.uniform(0.8, 1.2),
                chromatin=0.16,
            ),
        )


def _scatter_stromal_nuclei(
    canvas: _Canvas, flow: tuple[_Floats, _Floats], rng: np.random.Generator
) -> None:
    """Scatter spindles of fibroblasts along the fibres, and single lymphocytes."""
    depth = ndimage.distance_transform_edt(canvas.truth == STROMA)
    spots = np.argwhere(depth > 5)
    count = len(spots) // 420
    for row, col in spots[rng.integers(len(spots), size=count)]:
        along = float(np.arctan2(flow[0][row, col], flow[1][row, col]))
        centre = (float(row), float(col))
        if rng.random() < 0.35:
            nucleus = _lymphocyte(centre, rng)
        else:
            nucleus = _Nucleus(
                centre=centre,
                axes=(rng.uniform(6, 11), rng.uniform(1.8, 3)),
                angle=along + rng.normal(0, 0.25),
                density=rng.uniform(1.1, 2.0),
                chromatin=0.12,
            )
        _stain_nucleus(canvas, nucleus)


def _lymphocyte(centre: tuple[float, float], rng: np.random.Generator) -> _Nucleus:
    return _Nucleus(
        centre=centre,
        axes=(rng.uniform(4.4, 5.6), rng.uniform(3.8, 4.8)),
        angle=rng.uniform(0, np.pi),
        density=rng.uniform(1.4, 2.1),
        chromatin=0.14,
    )


def _paint_aggregate(
    canvas: _Canvas, aggregate: _Outline, rng: np.random.Generator
) -> None:
    """Crowd lymphocytes; the class covers them and the little between them."""
    crowd = np.zeros(canvas.shape, np.bool_)
    for centre in _crowd_centres(aggregate, 10.0, rng):
        nucleus = _lymphocyte(centre, rng)
        own, _ = _ellipse(nucleus.centre, nucleus.axes, nucleus.angle, canvas.shape)
        crowd[own] |= _stain_nucleus(canvas, nucleus)
    swollen = ndimage.binary_dilation(crowd, iterations=5)
    closed = ndimage.binary_erosion(swollen, iterations=5, border_value=1)
    here = closed & (canvas.truth == STROMA)
    canvas.truth[here] = LYMPHOCYTES
    canvas.hematoxylin[here & ~crowd] += 0.12


def _crowd_centres(
    outline: _Outline, pitch_px: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Jittered hexagonal lattice of points (y, x) inside `outline`."""
    reach = int(np.ceil(2 * outline.radius * outline.stretch / pitch_px))
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    y = (rows * np.sqrt(0.75) * pitch_px).ravel()
    x = ((cols + rows % 2 / 2) * pitch_px).ravel()
    y, x = (at + rng.normal(0, 0.16 * pitch_px, at.size) for at in (y, x))
    inside = outline.depth_at(y.astype(np.float32), x.astype(np.float32))[0] > 0
    top, left = outline.centre
    return [(top + dy, left + dx) for dy, dx in zip(y[inside], x[inside], strict=True)]


def _develop(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn stain into colour: uneven thickness, Beer-Lambert, optics, camera."""
    thickness = 1 + 0.07 * _noise(rng, canvas.shape, 60)
    absorbance = _ABSORBANCE + rng.normal(0, 0.02, (2, 3)).astype(np.float32)
    strength = rng.uniform(0.9, 1.12, 2)
    stains = np.stack(
        [
            canvas.hematoxylin * strength[0] * thickness,
            canvas.eosin * strength[1] * thickness,
        ],
        axis=-1,
    )
    light = rng.uniform([238, 236, 238], [248, 246, 248])
    colour = light * np.exp(-stains @ absorbance)
    blurred = ndimage.gaussian_filter(colour, (0.8, 0.8, 0))
    noisy = blurred + rng.normal(0, 3.0, blurred.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)
