"""Pictures to look at: labels laid over an image, and pictures in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.errors import ImageError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sparseseg.annotations.classes import ClassTable, LabelClass

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_STRETCH_PERCENT = (0.5, 99.5)
_GAP_PX = 8
_MIN_TEXT_PX = 8
_MAX_TEXT_PX = 28
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def to_rgb(image: ArrayLike) -> NDArray[np.uint8]:
    """Make an image of any type fit to be looked at.

    Colour of type uint8 stays as it is. Anything else is stretched so that its 0.5th
    and 99.5th percentile, over all channels, become black and white.

    Parameters
    ----------
    image
        (y, x), (y, x, 1), (y, x, 3) or (y, x, 4) numbers; of four channels the last,
        opacity, is left out. Pixels that are not finite become black.

    Returns
    -------
    ndarray
        (y, x, 3) uint8, not a copy where none is needed.

    Raises
    ------
    ImageError
        If `image` has another shape, no pixel, or no real numbers.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "biuf":
        raise ImageError(
            f"The image has pixels of type {pixels.dtype}, which cannot be shown; "
            "give integers or floating-point numbers.",
            dtype=str(pixels.dtype),
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not pixels.size:
        raise ImageError(
            f"The image has shape {np.shape(image)}, but only (y, x) and (y, x, c) "
            "with 1, 3 or 4 channels can be shown; choose channels to show.",
            shape=np.shape(image),
        )
    if pixels.shape[-1] >= 3:
        pixels = pixels[..., :3]
        if pixels.dtype == np.uint8:
            return pixels
    return np.repeat(_stretch(pixels), 3 // pixels.shape[-1], axis=-1)


def overlay(
    image: ArrayLike,
    label_map: ArrayLike,
    table: ClassTable,
    *,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Lay the colours of the classes over an image.

    Parameters
    ----------
    image
        (y, x) or (y, x, c); see `to_rgb`.
    label_map
        (y, x) integers; where it is 0 the image shows through unchanged.
    table
        The colours of its values.
    opacity
        0 = nothing but the image, 1 = the plain colours; strokes, being thin, are
        best seen with 1, dense label maps with 0.5.

    Returns
    -------
    ndarray
        (y, x, 3) uint8.

    Raises
    ------
    ImageError
        If `image` cannot be shown.
    LabelError
        If `label_map` does not fit the image, or has values that are not in `table`.
    OptionError
        If `opacity` is not within 0..1.
    """
    if not 0 <= opacity <= 1:
        raise OptionError(
            f"The opacity is {opacity}; give a number from 0 to 1.", opacity=opacity
        )
    picture = to_rgb(image).copy()
    labels = check_label_map(label_map, image_shape=picture.shape)
    table.check_values(labels)
    lookup = np.zeros((max(table.values, default=0) + 1, 3), np.float32)
    for each in table:
        lookup[each.value] = each.color
    marked = labels > 0
    blended = (1 - opacity) * picture[marked] + opacity * lookup[labels[marked]]
    picture[marked] = np.rint(blended).astype(np.uint8)
    return picture


def side_by_side(
    pictures: Sequence[ArrayLike],
    captions: Sequence[str],
    table: ClassTable | None = None,
) -> NDArray[np.uint8]:
    """Put pictures in a row, on white, each below its caption.

    Parameters
    ----------
    pictures
        One image or more, of any size; see `to_rgb`. Pixels are not scaled.
    captions
        One line for each. A line wider than its picture gets smaller letters.
        Letters that Pillow's built-in font lacks appear as boxes: use ASCII.
    table
        Classes for a legend below the row; None = no legend.

    Returns
    -------
    ndarray
        (y, x, 3) uint8.

    Raises
    ------
    ImageError
        If one of `pictures` cannot be shown.
    OptionError
        If there is no picture, or another number of captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise OptionError(
            f"There are {len(pictures)} pictures and {len(captions)} captions; "
            "give at least one picture and one caption for each.",
            pictures=len(pictures),
            captions=len(captions),
        )
    shown = [to_rgb(picture) for picture in pictures]
    height = max(picture.shape[0] for picture in shown)
    text_px = int(np.clip(height / 24, _MIN_TEXT_PX, _MAX_TEXT_PX))
    columns = [
        _below_caption(picture, caption, text_px, height)
        for picture, caption in zip(shown, captions, strict=True)
    ]
    row = _join(columns, axis=1)
    if table is None or not len(table):
        return row
    return _join([row, _legend(table, row.shape[1], text_px)], axis=0)


def _stretch(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(pixels.shape, np.uint8)
    low, high = np.percentile(values[finite], _STRETCH_PERCENT)
    scaled = (np.where(finite, values, low) - low) / max(high - low, 1e-12)
    return np.asarray(np.rint(255 * np.clip(scaled, 0, 1)), np.uint8)


def _join(parts: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Join pictures of one height (axis 1) or width (axis 0), a gap between them."""
    gap = np.full_like(np.take(parts[0], [0] * _GAP_PX, axis), _PAPER[0])
    spaced = [piece for part in parts for piece in (part, gap)][:-1]
    return np.concatenate(spaced, axis)


def _font(size_px: float) -> Font:
    return ImageFont.load_default(size_px)


def _text_width(text: str, font: Font) -> float:
    return font.getlength(text)


def _below_caption(
    picture: NDArray[np.uint8], caption: str, text_px: int, height: int
) -> NDArray[np.uint8]:
    """Put the picture under its caption, and white under it up to `height`."""
    strip, width = round(1.6 * text_px), picture.shape[1]
    paper = Image.new("RGB", (width, strip + height), _PAPER)
    size = text_px
    while size > _MIN_TEXT_PX and _text_width(caption, _font(size)) > width:
        size -= 1
    ImageDraw.Draw(paper).text(
        (width / 2, strip / 2), caption, fill=_INK, font=_font(size), anchor="mm"
    )
    paper.paste(Image.fromarray(picture), (0, strip))
    return np.asarray(paper)


def _legend(table: ClassTable, width: int, text_px: int) -> NDArray[np.uint8]:
    """Draw a coloured square and a name for each class, in as many lines as needed."""
    font, line_px = _font(text_px), round(1.5 * text_px)
    lines = _break_lines(table, width, font, text_px)
    paper = Image.new("RGB", (width, line_px * len(lines)), _PAPER)
    draw = ImageDraw.Draw(paper)
    for number, line in enumerate(lines):
        left, middle = 0.0, line_px * (number + 0.5)
        for each in line:
            square = (left, middle - text_px / 2, left + text_px, middle + text_px / 2)
            draw.rectangle(square, fill=each.color, outline=_INK)
            start = (left + 1.4 * text_px, middle)
            draw.text(start, each.name, fill=_INK, font=font, anchor="lm")
            left += _entry_width(each, font, text_px)
    return np.asarray(paper)


def _break_lines(
    table: ClassTable, width: int, font: Font, text_px: int
) -> list[list[LabelClass]]:
    lines: list[list[LabelClass]] = [[]]
    left = 0.0
    for each in table:
        entry = _entry_width(each, font, text_px)
        # The space after the last entry of a line may stick out.
        if lines[-1] and left + entry - text_px > width:
            lines.append([])
            left = 0.0
        lines[-1].append(each)
        left += entry
    return lines


def _entry_width(each: LabelClass, font: Font, text_px: int) -> float:
    return 2.4 * text_px + _text_width(each.name, font)
