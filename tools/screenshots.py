"""``make screenshots``: take the README's pictures of the window."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from napari_sparseseg.demo import photograph_window
from napari_sparseseg.io.atomic import write_atomically

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

#: Pictures of the README by those that are taken.
NAMES = {
    "window 1 strokes.png": "window-strokes.png",
    "window 2 first prediction.png": "window-first.png",
    "window 3 learned.png": "window-learned.png",
    "window masks of boxes.png": "boxes.png",
    "dock networks.png": "networks.png",
    "window predict and export.png": "predict.png",
    "dock list of images.png": "list.png",
    "window new field.png": "field.png",
}

#: The plugin's sample with boxes.
BOX_SAMPLE = "abdomen_phantom"

#: So often the prediction is scored before the last picture: enough for curves.
VALIDATIONS = 8

#: A picture with so many colours takes a quarter of the bytes and looks the same.
COLORS = 256


def main() -> None:
    """Write the pictures and name them."""
    with TemporaryDirectory() as place:
        taken = photograph_window(Path(place), validations=VALIDATIONS)
        taken += photograph_window(Path(place), sample=BOX_SAMPLE)
        for part in ("networks", "prediction", "list", "field"):
            taken += photograph_window(Path(place), only=part)
        for picture in taken:
            target = IMAGES / NAMES[picture.name]
            with Image.open(picture) as image:
                few = image.convert("RGB").quantize(
                    COLORS,
                    # Others make one colour of those of two classes.
                    Image.Quantize.MAXCOVERAGE,
                    dither=Image.Dither.NONE,
                )
            write_atomically(target, partial(few.save, format="PNG", optimize=True))
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
