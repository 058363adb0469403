"""Classes: stable values with names and colours, and their file format."""

from __future__ import annotations

import json
import operator
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.strokes import (
    MAX_CLASS_VALUE,
    fit_labels,
    narrow_labels,
)
from napari_sparseseg.errors import (
    ClassTableError,
    LabelError,
    enumerated,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

Color = tuple[int, int, int]
"""Red, green and blue, 0..255 each."""

_ANCHORS: tuple[Color, ...] = ((0, 0, 0), (255, 255, 255), (128, 128, 128))
_UNKNOWN = -1


@dataclass(frozen=True)
class LabelClass:
    """One class.

    Parameters
    ----------
    value
        Its value in label maps, 1..65535; never changes.
    name
        What the user calls it; not empty.
    color
        Red, green and blue, 0..255 each.
    key
        The key that picks it, if any.

    Raises
    ------
    ClassTableError
        If one of them is none of that.
    """

    value: int
    name: str
    color: Color
    key: str | None = None

    def __post_init__(self) -> None:
        """Check every field, and turn NumPy numbers into Python's."""
        object.__setattr__(self, "value", _checked_value(self.value))
        if not isinstance(self.name, str) or not self.name.strip():
            raise ClassTableError(
                f"Class {self.value} has the name {self.name!r}; "
                "give it a name of at least one letter.",
                name=self.name,
            )
        object.__setattr__(self, "color", _checked_color(self.color, self.name))
        if self.key is not None and (not isinstance(self.key, str) or not self.key):
            raise ClassTableError(
                f"The class '{self.name}' has the key {self.key!r}; "
                "give the name of a key, or none.",
                key=self.key,
            )


@dataclass(frozen=True)
class ClassTable:
    """The classes of a project, in ascending order of value.

    Network channel k stands for the k-th class of the table. Tables are not changed:
    `add`, `renamed`, `recolored` and `removed` give a new one.

    Parameters
    ----------
    classes
        The classes, in any order; values, names and keys are unique.
    retired
        Values that were used once and are never given to another class.

    Raises
    ------
    ClassTableError
        If a value, name or key occurs twice, or a class has a retired value.
    """

    classes: tuple[LabelClass, ...] = ()
    retired: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Sort by value and check what must be unique."""
        ordered = tuple(sorted(self.classes, key=operator.attrgetter("value")))
        retired = frozenset(_checked_value(value) for value in self.retired)
        object.__setattr__(self, "classes", ordered)
        object.__setattr__(self, "retired", retired)
        _check_unique("value", self.values)
        _check_unique("name", self.names)
        _check_unique("key", [each.key for each in self if each.key is not None])
        reused = sorted(retired.intersection(self.values))
        if reused:
            raise ClassTableError(
                f"The value {reused[0]} belongs to a class that was removed; a value "
                "is never used again, so give the class another one.",
                values=reused,
            )

    @property
    def values(self) -> tuple[int, ...]:
        """The class values, ascending."""
        return tuple(each.value for each in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in the order of `values`."""
        return tuple(each.name for each in self.classes)

    @property
    def named_values(self) -> tuple[tuple[int, str], ...]:
        """(value, name) pairs: what a training must have in common with another."""
        return tuple((each.value, each.name) for each in self.classes)

    def merged(self, other: ClassTable) -> ClassTable:
        """Give this table with the classes of another one that it lacks.

        Classes that are in both stay as they are here; a key that is taken is left out.

        Raises
        ------
        ClassTableError
            If a value has another name there, or a name another value.
        """
        names = dict(self.named_values)
        for value, name in other.named_values:
            if names.get(value, name) != name:
                raise ClassTableError(
                    f"The class {value} is '{names[value]}' here, but '{name}' there; "
                    "values that mean different things cannot be used together.",
                    values=[value],
                )
        keys = {each.key for each in self}
        new = tuple(
            replace(each, key=None) if each.key in keys else each
            for each in other
            if each.value not in names
        )
        classes = (*self.classes, *new)
        used = {each.value for each in classes}
        return ClassTable(classes, (self.retired | other.retired) - used)

    def __len__(self) -> int:
        """Give the number of classes."""
        return len(self.classes)

    def __iter__(self) -> Iterator[LabelClass]:
        """Go through the classes by ascending value."""
        return iter(self.classes)

    def by_value(self, value: int) -> LabelClass:
        """Give the class of a value, or raise ClassTableError with the values."""
        for each in self.classes:
            if each.value == value:
                return each
        raise ClassTableError(
            f"There is no class of value {value}; the values are "
            f"{enumerated(self.values)}.",
            value=value,
        )

    def by_name(self, name: str) -> LabelClass:
        """Give the class of a name, or raise ClassTableError with the names."""
        for each in self.classes:
            if each.name == name:
                return each
        raise ClassTableError(
            f"There is no class '{name}'; the classes are {enumerated(self.names)}.",
            name=name,
        )

    def add(
        self, name: str, color: Color | None = None, key: str | None = None
    ) -> ClassTable:
        """Give a table with one more class.

        Parameters
        ----------
        name
            Its name.
        color
            Its colour; None = one that differs from the colours in the table.
        key
            The key that picks it, if any.

        Returns
        -------
        ClassTable
            The new class has the largest value ever used here plus 1.

        Raises
        ------
        ClassTableError
            If the name or the key is taken, or no value is left.
        """
        value = max([0, *self.values, *self.retired]) + 1
        if value > MAX_CLASS_VALUE:
            raise ClassTableError(
                f"The class '{name}' cannot be added: the largest possible value, "
                f"{MAX_CLASS_VALUE}, is already used; start a new class table.",
                name=name,
            )
        if color is None:
            color = distinct_colors(1, [each.color for each in self])[0]
        return replace(
            self, classes=(*self.classes, LabelClass(value, name, color, key))
        )

    def renamed(self, value: int, name: str) -> ClassTable:
        """Give a table in which the class of a value has another name."""
        return self._with(replace(self.by_value(value), name=name))

    def recolored(self, value: int, color: Color) -> ClassTable:
        """Give a table in which the class of a value has another colour."""
        return self._with(replace(self.by_value(value), color=color))

    def removed(self, value: int) -> ClassTable:
        """Give a table without the class of a value, which becomes retired."""
        gone = self.by_value(value)
        return ClassTable(
            tuple(each for each in self if each != gone), self.retired | {gone.value}
        )

    def _with(self, changed: LabelClass) -> ClassTable:
        return replace(
            self,
            classes=tuple(
                changed if each.value == changed.value else each for each in self
            ),
        )

    @classmethod
    def from_values(cls, values: Iterable[int]) -> ClassTable:
        """Make a table for label maps that have none.

        Parameters
        ----------
        values
            Class values, in any order, repeated or not; 0 (not annotated) is left out.

        Returns
        -------
        ClassTable
            Classes named "class 1", "class 2" ... after their values.

        Raises
        ------
        ClassTableError
            If a value is outside 0..65535.
        """
        wanted = sorted({operator.index(value) for value in values} - {0})
        colors = distinct_colors(len(wanted))
        return cls(
            tuple(
                LabelClass(value, f"class {value}", color)
                for value, color in zip(wanted, colors, strict=True)
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Give the table as JSON data.

        Returns
        -------
        dict
            ``{"unlabelled": 0, "classes": [{"value", "name", "color", "key"}, ...],
            "retired": [...]}``; "key" and "retired" only where there are any.
        """
        data: dict[str, Any] = {
            "unlabelled": 0,
            "classes": [_class_to_json(each) for each in self],
        }
        if self.retired:
            data["retired"] = sorted(self.retired)
        return data

    @classmethod
    def from_json(cls, data: object) -> ClassTable:
        """Make a table from JSON data as given by `to_json`.

        Raises
        ------
        ClassTableError
            If the data has another form, or keys that are not known, which are named.
        """
        table = _checked_keys(
            data, "The class table", required=("classes",), optional=_TABLE_OPTIONAL
        )
        unlabelled = table.get("unlabelled", 0)
        if unlabelled != 0 or isinstance(unlabelled, bool):
            raise ClassTableError(
                f"The class table says that {unlabelled!r} means not annotated, "
                "but that is always 0; change the label maps and the table.",
                unlabelled=unlabelled,
            )
        return cls(
            tuple(map(_class_from_json, _checked_list(table, "classes"))),
            frozenset(map(_checked_value, _checked_list(table, "retired"))),
        )

    def check_values(self, label_map: ArrayLike, name: str = "label map") -> None:
        """Check that every annotated pixel has a class.

        Parameters
        ----------
        label_map
            Integers of any shape, 0 = not annotated.
        name
            What the error message calls it.

        Raises
        ------
        LabelError
            If it has values that are not in the table, which are named with the
            number of their pixels; or no integers.
        """
        labels = narrow_labels(np.asarray(label_map), name)
        known = self._channel_lookup() != _UNKNOWN
        self._refuse(labels[~known[labels]], name)

    def to_channels(self, label_map: ArrayLike) -> NDArray[np.int64]:
        """Turn class values into channel numbers.

        Parameters
        ----------
        label_map
            Integers of any shape, 0 = not annotated.

        Returns
        -------
        ndarray
            int64 of the same shape: 0 = not annotated, k + 1 = channel k.

        Raises
        ------
        LabelError
            If it has values that are not in the table (see `check_values`).
        """
        labels = narrow_labels(np.asarray(label_map))
        channels = self._channel_lookup()[labels]
        self._refuse(labels[channels == _UNKNOWN], "label map")
        return channels

    def from_channels(
        self, channel_map: ArrayLike
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Turn the channel numbers of a prediction into class values.

        Parameters
        ----------
        channel_map
            Integers of any shape, 0 = the first channel.

        Returns
        -------
        ndarray
            Class values of the same shape; uint8, or uint16 when the table has a
            value above 255.

        Raises
        ------
        LabelError
            If it holds no integers, or a number that is no channel.
        """
        channels = np.asarray(channel_map)
        if channels.dtype.kind not in "iu":
            raise LabelError(
                f"The channel map has numbers of type {channels.dtype}, but channels "
                "are integers; take the arg-max over the channels first.",
                dtype=str(channels.dtype),
            )
        if channels.size and not (
            int(channels.min()) >= 0 and int(channels.max()) < len(self)
        ):
            raise LabelError(
                f"The channel map has numbers from {channels.min()} to "
                f"{channels.max()}, but the class table has {len(self)} classes, "
                f"channels 0..{len(self) - 1}; use the model's own class table.",
                n_classes=len(self),
            )
        highest = max(self.values, default=0)
        return fit_labels(np.asarray(self.values), highest).take(channels)

    def _channel_lookup(self) -> NDArray[np.int64]:
        lookup = np.full(MAX_CLASS_VALUE + 1, _UNKNOWN, np.int64)
        lookup[0] = 0
        lookup[list(self.values)] = np.arange(1, len(self) + 1)
        return lookup

    def _refuse(self, unknown: NDArray[Any], name: str) -> None:
        """Raise LabelError if there are pixels of unknown values."""
        if not unknown.size:
            return
        counts = count_values(unknown)
        raise LabelError(
            f"The {name} has values that are not in the class table: "
            f"{counts_text(counts)}; the table has the values "
            f"{enumerated(self.values)}, so add the missing classes or correct the "
            "label map.",
            counts=counts,
        )


def read_class_table(path: str | Path) -> ClassTable:
    """Read a class table from a JSON file (see `ClassTable.to_json`).

    Raises
    ------
    ClassTableError
        If the file cannot be read or is no class table, with its name.
    """
    try:
        # Some editors put a byte order mark first.
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ClassTableError(
            f"The class table {path} cannot be read: {error.strerror or error}.",
            path=str(path),
        ) from error
    except (ValueError, RecursionError) as error:
        raise ClassTableError(
            f"The class table {path} is not a JSON file: {error}; expected is "
            '{"unlabelled": 0, "classes": [{"value": 1, "name": "background", '
            '"color": [0, 0, 0]}]}.',
            path=str(path),
        ) from error
    try:
        return ClassTable.from_json(data)
    except ClassTableError as error:
        raise ClassTableError(f"{path}: {error}", path=str(path)) from error


def write_class_table(path: str | Path, table: ClassTable) -> None:
    """Write a class table to a JSON file, completely or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # io imports this module.
    from napari_sparseseg.io.atomic import write_text_atomically

    text = json.dumps(table.to_json(), indent=1, ensure_ascii=False)
    write_text_atomically(path, text)


def find_class_table(label_path: str | Path) -> ClassTable | None:
    """Find the class table that belongs to a label map's file.

    Parameters
    ----------
    label_path
        The label map, for example ``case.png``.

    Returns
    -------
    ClassTable or None
        From ``case.classes.json`` beside it, else ``classes.json`` in its folder;
        None where neither exists.

    Raises
    ------
    ClassTableError
        If the file exists but cannot be read or is no class table.
    """
    # io imports this module.
    from napari_sparseseg.io.images import stem_of

    folder = Path(label_path).parent
    for name in (f"{stem_of(label_path)}.classes.json", "classes.json"):
        if (folder / name).is_file():
            return read_class_table(folder / name)
    return None


def label_map_from_colors(
    rgb: ArrayLike, table: ClassTable, *, unlabelled: Color | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Turn a colour-coded mask into a label map.

    Parameters
    ----------
    rgb
        (y, x, 3) or (y, x, 4) uint8: the colours of the classes. Of the fourth
        channel only 0 counts: wholly transparent pixels are not annotated.
    table
        The classes; their colours must differ.
    unlabelled
        The colour of pixels that are not annotated, if there is one.

    Returns
    -------
    ndarray
        (y, x) uint8, or uint16 when the table has a value above 255.

    Raises
    ------
    LabelError
        If the mask has another shape or type, or colours that belong to no class,
        which are named with the number of their pixels.
    ClassTableError
        If two classes, or a class and ``unlabelled``, have the same colour.
    """
    mask = np.asarray(rgb)
    if mask.ndim != 3 or mask.shape[2] not in (3, 4) or mask.dtype != np.uint8:
        raise LabelError(
            f"The colour-coded mask has shape {mask.shape} and type {mask.dtype}, but "
            "it must be (y, x, 3) or (y, x, 4) of type uint8; a mask of one number a "
            "pixel is a label map already.",
            shape=mask.shape,
            dtype=str(mask.dtype),
        )
    known, values = _color_lookup(table, unlabelled)
    codes = _color_codes(mask)
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    labels: NDArray[np.uint8] | NDArray[np.uint16] = values[places]
    unknown = known[places] != codes
    if mask.shape[2] == 4:
        transparent = mask[..., 3] == 0
        labels[transparent] = 0
        unknown &= ~transparent
    if unknown.any():
        raise _unknown_colors(codes[unknown], table)
    return labels


def distinct_colors(n: int, taken: Sequence[Color] = ()) -> list[Color]:
    """Choose colours that differ from each other and from those already taken.

    Each is the one of 4096 evenly spaced colours that is farthest from black, white,
    grey and all colours before it, in the "redmean" approximation of how different
    colours look (T. Riemersma, "Colour metric", www.compuphase.com/cmetric.htm).

    Parameters
    ----------
    n
        How many colours.
    taken
        Colours to keep away from.

    Returns
    -------
    list of Color
        The first ``n`` choices; always the same for the same ``taken``.
    """
    steps = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    candidates = candidates.reshape(-1, 3)
    distances = np.full(len(candidates), np.inf)
    for color in (*_ANCHORS, *taken):
        distances = np.minimum(distances, _redmean(candidates, color))
    chosen: list[Color] = []
    for _ in range(n):
        red, green, blue = candidates[distances.argmax()].tolist()
        chosen.append((red, green, blue))
        distances = np.minimum(distances, _redmean(candidates, chosen[-1]))
    return chosen


def count_values(labels: NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each value, most frequent first."""
    values, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return dict(zip(values[order].tolist(), counts[order].tolist(), strict=True))


def counts_text(counts: Mapping[Any, int], most: int = 8) -> str:
    """Word the pixel counts of values or colours for an error message."""
    words = [
        f"{what} in {count} {'pixel' if count == 1 else 'pixels'}"
        for what, count in list(counts.items())[:most]
    ]
    more = len(counts) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _redmean(colors: NDArray[Any], color: Color) -> NDArray[np.float64]:
    red, green, blue = (np.asarray(colors, np.float64) - color).T
    mean_red = (colors[:, 0] + color[0]) / 2
    squares: NDArray[np.float64] = (
        (2 + mean_red / 256) * red**2
        + 4 * green**2
        + (2 + (255 - mean_red) / 256) * blue**2
    )
    return squares


def _color_codes(colors: NDArray[Any]) -> NDArray[np.uint32]:
    """Pack red, green and blue of the last axis into one number."""
    red, green, blue = np.moveaxis(colors[..., :3].astype(np.uint32), -1, 0)
    codes: NDArray[np.uint32] = (red << 16) | (green << 8) | blue
    return codes


def _color_lookup(
    table: ClassTable, unlabelled: Color | None
) -> tuple[NDArray[np.uint32], NDArray[np.uint8] | NDArray[np.uint16]]:
    """Give the colour codes of a table, ascending, and the class value of each."""
    named = [(each.color, each.value, f"the class '{each.name}'") for each in table]
    if unlabelled is not None:
        color = _checked_color(unlabelled, "not annotated")
        named.append((color, 0, "pixels that are not annotated"))
    if not named:
        raise ClassTableError(
            "The class table has no class; add the classes with the colours of the "
            "mask first."
        )
    seen: dict[Color, str] = {}
    for color, _, who in named:
        if color in seen:
            raise ClassTableError(
                f"The colour {color} stands for {seen[color]} and for {who}; "
                "a colour-coded mask needs a colour of its own for each.",
                color=color,
            )
        seen[color] = who
    codes = _color_codes(np.asarray([color for color, _, _ in named]))
    order = np.argsort(codes)
    values = np.asarray([value for _, value, _ in named])
    return codes[order], fit_labels(values[order], int(values.max()))


def _unknown_colors(codes: NDArray[np.uint32], table: ClassTable) -> LabelError:
    counts = {
        (code >> 16, code >> 8 & 255, code & 255): count
        for code, count in count_values(codes).items()
    }
    known = enumerated([f"{each.name} {each.color}" for each in table])
    return LabelError(
        "The colour-coded mask has colours that belong to no class: "
        f"{counts_text(counts)}; the classes are {known}, so add the missing classes, "
        "say which colour means not annotated, or save the mask without smoothing "
        "and lossy compression.",
        counts=counts,
    )


_TABLE_OPTIONAL = ("unlabelled", "retired")


def _class_to_json(each: LabelClass) -> dict[str, Any]:
    data: dict[str, Any] = {
        "value": each.value,
        "name": each.name,
        "color": list(each.color),
    }
    return data if each.key is None else {**data, "key": each.key}


def _class_from_json(data: object) -> LabelClass:
    fields = _checked_keys(
        data,
        "A class of the class table",
        required=("value", "name", "color"),
        optional=("key",),
    )
    return LabelClass(**fields)


def _checked_keys(
    data: object, what: str, required: Sequence[str], optional: Sequence[str]
) -> dict[str, Any]:
    expected = enumerated([f'"{key}"' for key in (*required, *optional)])
    if not isinstance(data, dict):
        raise ClassTableError(
            f"{what} is {shortened(data)}, but it must be an object with {expected}.",
            data=data,
        )
    unknown = [str(key) for key in data if key not in (*required, *optional)]
    missing = [key for key in required if key not in data]
    for keys, problem in ((unknown, "unknown"), (missing, "missing")):
        if keys:
            named = enumerated([f'"{key}"' for key in keys])
            raise ClassTableError(
                f"{what} has {problem} keys: {named}; expected are {expected}.",
                **{problem: keys},
            )
    return data


def _checked_list(table: Mapping[str, Any], key: str) -> list[Any]:
    items = table.get(key, [])
    if not isinstance(items, list):
        raise ClassTableError(
            f'"{key}" of the class table is {shortened(items)}, but it must be a list.',
            data=items,
        )
    return items


def _checked_value(value: object) -> int:
    number = _integer(value)
    if number is None or not 1 <= number <= MAX_CLASS_VALUE:
        raise ClassTableError(
            f"{shortened(value)} cannot be a class value; give an integer from 1 to "
            f"{MAX_CLASS_VALUE} (0 means not annotated).",
            value=value,
        )
    return number


def _checked_color(color: object, name: str) -> Color:
    if isinstance(color, tuple | list) and len(color) == 3:
        red, green, blue = (_byte(part) for part in color)
        if red is not None and green is not None and blue is not None:
            return red, green, blue
    raise ClassTableError(
        f"The colour of '{name}' is {shortened(color)}, but a colour is three "
        "integers from 0 to 255: red, green, blue.",
        color=color,
    )


def _integer(value: object) -> int | None:
    """Give a Python or NumPy integer as int, anything else, bool too, as None."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    return None


def _byte(value: object) -> int | None:
    number = _integer(value)
    return number if number is not None and 0 <= number <= 255 else None


def _check_unique(what: str, items: Sequence[object]) -> None:
    twice = [repr(item) for item, count in Counter(items).items() if count > 1]
    if twice:
        raise ClassTableError(
            f"The {what} {twice[0]} belongs to more than one class; "
            f"give each class a {what} of its own.",
            twice=twice,
        )
