"""Brings viewer, boxes and engine together; changes the state of the dock "Boxes"."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import enumerated
from napari_sparseseg.gui import boxes_settings
from napari_sparseseg.gui.activity import Activity
from napari_sparseseg.gui.boxes_classes import BoxClasses
from napari_sparseseg.gui.boxes_labels import BoxLabels, fits
from napari_sparseseg.gui.boxes_layer import (
    boxes_name,
    centre_in_world,
    class_names,
    class_numbers,
    color_classes,
    draw_class,
    label_boxes,
    name_classes,
    new_boxes_for,
    rename_classes,
)
from napari_sparseseg.gui.boxes_making import MaskMaking
from napari_sparseseg.gui.boxes_sheet import BoxSheet
from napari_sparseseg.gui.boxes_state import FIXED_CRF
from napari_sparseseg.gui.class_colors import give_classes
from napari_sparseseg.gui.controller import DEVICE_LOST
from napari_sparseseg.gui.encoders import (
    consistent_masks,
    encoder_of_masks,
    why_missing,
)
from napari_sparseseg.gui.homes import settle
from napari_sparseseg.gui.kept_boxes import KeptBoxes
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.log import log_file, without_words
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import counted, listen, once
from napari_sparseseg.gui.pixel_watch import PixelWatch
from napari_sparseseg.gui.plane_files import PlaneFiles
from napari_sparseseg.gui.planes import new_labels_for
from napari_sparseseg.gui.state import STARTING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.engine.messages import MaskSettings
    from napari_sparseseg.gui.boxes_state import BoxesState
    from napari_sparseseg.gui.engine_link import EngineLink
    from napari_sparseseg.gui.mirror import Mirror

logger = logging.getLogger(__name__)

#: Width of the outlines that labels of a whole image are shown by.
OUTLINE_PX = 2

#: Shapes that change are read after so long, changed labels are looked at then, and a
#: moving parameter is waited for.
READ_MS, PREVIEW_MS = 40, 120


class BoxesController(QObject):
    """Does what the user wishes with boxes, and shows what the engine makes of them.

    Parameters
    ----------
    viewer
        The napari viewer.
    state
        What the dock shows.
    link
        To the engine, which is started here.
    mirror
        Has the folder in which boxes and labels are kept on disk.

    Attributes
    ----------
    classes
        The class table.
    kept
        Keeps boxes and labels on disk.
    image, shapes, labels
        The layers that are worked on.
    is_closed
        Whether the dock is gone, and nothing is done any more.

    Signals
    -------
    shapes_added(layer), labels_added(layer)
        A new layer is to be worked on.
    training_wished(image, labels)
        The masks are in these labels, and are to be trained on.
    """

    shapes_added = Signal(object)
    labels_added = Signal(object)
    training_wished = Signal(object, object)

    def __init__(
        self,
        viewer: ViewerModel,
        state: BoxesState,
        link: EngineLink,
        mirror: Mirror,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.image: Image | None = None
        self.shapes: Shapes | None = None
        self.labels: Labels | None = None
        self.is_closed = False
        self._viewer = viewer
        self._state = state
        self._link = link
        self._files = PlaneFiles()
        self._sheets: list[BoxSheet] = []
        self._enclosing: WeakSet[Shapes] = WeakSet()
        self._numbered: WeakSet[Shapes] = WeakSet()
        self._stale: set[tuple[int, ...]] = set()
        self._pixels = PixelWatch(self)
        self.classes = BoxClasses(viewer, self._names, self)
        self.kept = KeptBoxes(viewer, mirror, self.classes, self)
        self._accepted = BoxLabels(self.classes, self)
        self._making = MaskMaking(state, link.send, self._files, self)
        self._activity = Activity("Masks of boxes")
        self._reading = once(self, self.read, READ_MS)
        self._looking = once(self, self._look_at_labels, READ_MS)
        self._showing = once(self, self._show_masks, READ_MS)
        self._previewing = once(self, self._preview, PREVIEW_MS)
        self.classes.changed.connect(self._on_classes)
        self._accepted.painted.connect(self._looking.start)
        self._making.made.connect(self._on_made)
        self._making.ended.connect(self._show_state)
        self._pixels.replaced.connect(self._on_pixels)
        self._telling = once(self, self._show_progress, 0)
        listen(self, state.events.progress, self._on_progress)
        link.told.connect(self._on_told)
        link.died.connect(self._on_died)
        link.slow.connect(self._on_slow)
        # Background is a class like any other, by default the first.
        first = self.classes.table.values[0]
        state.settings = replace(state.settings, background=first)
        self._on_classes({}, {first: first})
        link.start()

    @property
    def sheet(self) -> BoxSheet | None:
        """The boxes on the chosen image, None where something is not chosen."""
        for sheet in self._sheets:
            if sheet.image is self.image and sheet.shapes is self.shapes:
                return sheet
        return None

    # Layers.

    @telling()
    def choose(
        self, image: Image | None, shapes: Shapes | None, labels: Labels | None
    ) -> None:
        """Work on these layers."""
        # While they are known as planes of the sheet of before.
        self._show_masks()
        if shapes is not self.shapes:
            self._follow(shapes)
        self.image, self.shapes, self.labels = image, shapes, labels
        self._open_sheet()
        self._adopt_classes()
        self.read()
        self.draw(self._state.drawn_class)

    @telling()
    def new_boxes(self) -> None:
        """Add an empty layer on the image, to draw boxes in."""
        if self.image is None:
            return
        name = boxes_name(self.image)
        shapes = Shapes(**new_boxes_for(self.image, name, self.classes.table))
        settle(shapes, self.image)
        self._viewer.add_layer(shapes)
        self._viewer.layers.selection.active = shapes
        self.shapes_added.emit(shapes)
        shapes.mode = "add_rectangle"
        self._state.status = "Draw a box around each object, with the mouse."

    @telling()
    def new_labels(self) -> Labels | None:
        """Add an empty label layer on the image, for the masks that are accepted."""
        if self.image is None:
            return None
        highest = max(self.classes.table.values, default=1)
        name = f"{self.image.name} labels"
        labels = Labels(**new_labels_for(self.image, name, highest))
        settle(labels, self.image)
        give_classes(labels, self.classes.table)
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(labels)
        # Boxes shall stay on top, and to be drawn.
        if self.shapes is not None and self.shapes in self._viewer.layers:
            layers = self._viewer.layers
            layers.move(layers.index(labels), layers.index(self.shapes))
        if active is not None:
            self._viewer.layers.selection.active = active
        self.labels_added.emit(labels)
        return labels

    @telling()
    def forget(self, layer: Any) -> None:
        """Forget a layer that the user has deleted."""
        if self.is_closed:
            return
        self.kept.forget(layer)
        self._close_sheets(layer)
        if isinstance(layer, Image):
            self._files.forget(layer)
        written = self._accepted.forget(layer)
        if written is not None:
            for sheet in self._sheets:
                sheet.results.forget_labels(written)
                self._show_sheet(sheet, sheet.results.planes)
            self._show_state()

    def _open_sheet(self) -> None:
        if self.image is not None and self.shapes is not None and self.sheet is None:
            self._pixels.watch(self.image)
            self.kept.follow(self.shapes, self.image)
            self._sheets.append(
                BoxSheet(
                    self._viewer.layers, self.image, self.shapes, self.classes.table
                )
            )

    def _close_sheets(self, layer: Any) -> None:
        for sheet in [s for s in self._sheets if layer in (s.image, s.shapes)]:
            self._making.forget(sheet)
            sheet.layers.remove()
            self._sheets.remove(sheet)

    @telling()
    def _on_pixels(self, image: Image) -> None:
        """Forget what was made of other pixels than those of now."""
        if self.is_closed:
            return
        self._files.forget(image)
        self._close_sheets(image)
        if image is self.image:
            self._open_sheet()
            self.read()

    # Boxes and their classes.

    @telling()
    def draw(self, value: int) -> None:
        """Give new boxes this class."""
        self._state.drawn_class = value
        if self.shapes is not None and value in self.classes.table.values:
            draw_class(self.shapes, self.classes.table, value)

    @telling()
    def add_class(self, name: str) -> None:
        """Add a class; new boxes have it."""
        self.classes.look_for_training()
        self.classes.add(name)
        if name in self.classes.table.names:
            self.draw(self.classes.table.by_name(name).value)

    @telling()
    def give_class(self, places: Sequence[int], value: int) -> None:
        """Give boxes that are drawn another class."""
        if self.shapes is None:
            return
        names = class_names(self.shapes)
        for place in places:
            names[place] = self.classes.table.by_value(value).name
        name_classes(self.shapes, names)
        self.read()

    @telling()
    def pick(self, places: Sequence[int]) -> None:
        """Pick boxes, and go to the plane of the first."""
        sheet = self.sheet
        if sheet is None or tuple(places) == self._state.picked:
            return
        self._state.picked = tuple(places)
        sheet.shapes.selected_data = set(places)
        boxes = sheet.boxes(places)
        if boxes:
            world = centre_in_world(sheet.image, boxes[0])
            first = self._viewer.dims.ndim - len(world)
            for axis in range(len(boxes[0].plane)):
                self._viewer.dims.set_point(first + axis, world[axis])
        self._show_state()

    @telling()
    def delete(self, places: Sequence[int]) -> None:
        """Delete boxes and their proposed masks; what is accepted stays."""
        if self.shapes is not None and places:
            self.shapes.selected_data = set(places)
            self.shapes.remove_selected()
            self.read()

    # Masks.

    @telling()
    def use_settings(self, wished: MaskSettings) -> None:
        """Make masks in this way from now on."""
        before = self._state.settings
        self._state.settings = consistent_masks(wished, before, self._state.devices)
        boxes_settings.keep(self._state)
        crf = wished.crf, wished.crf_options
        if crf != (before.crf, before.crf_options):
            self._preview_soon()
        self._show_state()

    @telling()
    def look_for_weights(self) -> None:
        """Make masks with weights that were missing."""
        self._show_state()

    @telling()
    def generate(self, places: Sequence[int] | None = None) -> None:
        """Make the masks of all boxes, or of those at *places*."""
        self.read()
        sheet = self.sheet
        cannot = (
            self._state.cannot_generate if places is None else self._why_not(places)
        )
        if sheet is None or cannot:
            show_warning(cannot)
            return
        settle(sheet.shapes, sheet.image)
        self._tell_of_skipped(sheet, places)
        self._making.make(sheet, sheet.boxes(places))
        self._show_state()

    @telling()
    def cancel(self) -> None:
        """Make no more masks; those that are there stay."""
        self._making.cancel()

    @telling()
    def set_preview(self, wanted: bool) -> None:
        """Draw the picked box anew when a parameter moves, or do not."""
        self._state.preview = wanted
        self._preview_soon()

    @telling()
    def show_map(self, wanted: bool) -> None:
        """Show the localisation maps, or remove them."""
        self._state.map_visible = wanted
        for sheet in self._sheets:
            if wanted:
                sheet.show(sheet.results.planes, self.labels, with_map=True)
            else:
                sheet.layers.hide_map()

    # What is kept of them.

    @telling()
    def accept(self, places: Sequence[int]) -> None:
        """Write proposed masks into the labels, in one step that can be undone."""
        boxes = self._proposed(places)
        if boxes:
            self._accept(boxes)
            self._state.status = f"Accepted: {counted(len(boxes), 'mask')}."

    def count_replaced(self, places: Sequence[int]) -> int:
        """Count the pixels that the user has painted and accepting would replace."""
        sheet, labels = self.sheet, self.labels
        if sheet is None or labels is None or not fits(sheet.image, labels):
            return 0
        into = self._accepted.look_at(labels)
        return sheet.results.count_replaced(self._proposed(places), into)

    @telling()
    def undo(self) -> None:
        """Take back what was accepted last; what was painted there since stays."""
        sheet = self.sheet
        if sheet is None:
            return
        self._state.status = (
            "Taken back: what was accepted last."
            if sheet.results.undo()
            else "Nothing is left of what was accepted."
        )
        self._stale |= sheet.results.planes
        self._look_at_labels()

    @telling()
    def train_on_these(self) -> None:
        """Accept what is left, with the background, and have a network trained."""
        self.read()
        sheet = self.sheet
        if sheet is None or self._state.cannot_train:
            show_warning(self._state.cannot_train)
            return
        left = self._proposed(self._state.places("proposed"))
        labels = self._accept(left, outside=True)
        if self._state.settings.background:
            # They are all over the image, and hide it and what is predicted.
            labels.contour = OUTLINE_PX
        self.training_wished.emit(sheet.image, labels)
        self.classes.look_for_training()

    def close(self) -> None:
        """End the engine; boxes and accepted masks stay in their layers."""
        if self.is_closed:
            return
        self.is_closed = True
        self.kept.close()
        self._activity.show(None)
        for timer in (
            self._reading,
            self._looking,
            self._showing,
            self._previewing,
            self._telling,
        ):
            timer.stop()
        with telling():
            self._follow(None)
            self._accepted.close()
            self._link.stop()
        with telling():
            # Nobody could accept them, and they would be there twice with the next.
            for sheet in self._sheets:
                sheet.layers.remove()
        with telling():
            self._making.close()
            self._files.close()

    # What the user draws.

    @telling()
    def read(self) -> None:
        """Read boxes and classes of now."""
        self._reading.stop()
        if self.is_closed:
            return
        self.classes.look_for_training()
        sheet = self.sheet
        if sheet is not None:
            self._name_all(sheet.shapes)
            self._stale |= sheet.read(self.classes.table)
            self._making.keep_only(sheet, sheet.boxes())
            color_classes(sheet.shapes, self.classes.table)
            self._tell_of_enclosing(sheet)
            self._showing.start()
        self._show_state()

    def _name_all(self, shapes: Shapes) -> None:
        """See that each shape has a class, and each class is in the table."""
        names, numbers = class_names(shapes), class_numbers(shapes)
        by_value = dict(self.classes.table.named_values)
        drawn = by_value.get(self._state.drawn_class, "")
        named = [
            name or (by_value.get(numbers[n], "") if n in numbers else drawn)
            for n, name in enumerate(names)
        ]
        if named != names:
            name_classes(shapes, named)
            self.draw(self._state.drawn_class)
        if named:
            label_boxes(shapes)
        for name in dict.fromkeys(named):
            known = {"", *self.classes.table.names, *self.classes.deleted}
            if name not in known:
                self.classes.add(name)
        self._tell_of_numbers(shapes, {n for n in numbers if not named[n]})

    def _names(self) -> list[str]:
        return sorted({n for sheet in self._sheets for n in class_names(sheet.shapes)})

    def _follow(self, shapes: Shapes | None) -> None:
        """Notice what happens in another layer from now on."""
        if self.shapes is not None:
            for event in _events(self.shapes):
                event.disconnect(self._on_shapes)
            self.shapes.events.data.disconnect(self._on_drawn)
            self.shapes.events.highlight.disconnect(self._on_highlight)
        if shapes is not None:
            for event in _events(shapes):
                event.connect(self._on_shapes)
            shapes.events.data.connect(self._on_drawn)
            shapes.events.highlight.connect(self._on_highlight)

    def _on_shapes(self, _event: Any = None) -> None:
        self._reading.start()

    def _on_drawn(self, _event: Any = None) -> None:
        """Note that boxes are of the image that they are drawn on."""
        if self.image is not None and self.shapes is not None:
            settle(self.shapes, self.image)

    @telling()
    def _on_highlight(self, _event: Any = None) -> None:
        """Pick what is selected on the canvas."""
        sheet = self.sheet
        if sheet is None:
            return
        n_rows = len(self._state.rows)
        selected = tuple(sorted(n for n in sheet.shapes.selected_data if n < n_rows))
        if selected != self._state.picked:
            self._state.picked = selected
            self._show_state()

    def _tell_of_enclosing(self, sheet: BoxSheet) -> None:
        count = sum(drawn.encloses for drawn in sheet.drawn)
        if count and sheet.shapes not in self._enclosing:
            self._enclosing.add(sheet.shapes)
            show_info(
                f"{counted(count, 'shape')} in '{sheet.shapes.name}' "
                f"{'is' if count == 1 else 'are'} no upright rectangle"
                f"{'' if count == 1 else 's'}; the box around each is taken."
            )

    def _tell_of_numbers(self, shapes: Shapes, places: set[int]) -> None:
        if places and shapes not in self._numbered:
            self._numbered.add(shapes)
            numbers = class_numbers(shapes)
            values = sorted({f"{numbers[place]:g}" for place in places})
            show_warning(
                f"In '{shapes.name}' {counted(len(places), 'shape')} of the class "
                f"{enumerated(values)}, which the class table does not have; give "
                "them one of its classes below the list."
            )

    def _tell_of_skipped(self, sheet: BoxSheet, places: Sequence[int] | None) -> None:
        chosen = range(len(sheet.drawn)) if places is None else places
        skipped = [
            f"box {place + 1}: {sheet.drawn[place].problem}"
            for place in chosen
            if sheet.drawn[place].box is None
        ]
        if skipped:
            show_warning(f"Skipped: {'; '.join(skipped)}.")

    # Classes.

    def _adopt_classes(self) -> None:
        """Take the table that the boxes bring, or else the labels."""
        brought = [
            layer.metadata[CLASSES_KEY]
            for layer in (self.shapes, self.labels)
            if layer is not None and CLASSES_KEY in layer.metadata
        ]
        if brought:
            self.classes.use(ClassTable.from_json(brought[0]))

    @telling()
    def _on_classes(
        self, renamed: Mapping[str, str], values: Mapping[int, int]
    ) -> None:
        table, state = self.classes.table, self._state
        state.classes = table
        self._making.use_values(values)
        self._accepted.use_values(values)
        for sheet in self._sheets:
            rename_classes(sheet.shapes, renamed)
            sheet.results.use_values(values)
            sheet.layers.use_classes(table)
            self._stale |= sheet.read(table) | sheet.results.planes
        background = values.get(state.settings.background, 0)
        if state.settings.background and not values:
            background = next(iter(table.values), 0)
        if state.settings.background != background:
            state.settings = replace(state.settings, background=background)
        state.drawn_class = values.get(state.drawn_class, 0)
        if not state.drawn_class:
            objects = [v for v in table.values if v != background]
            state.drawn_class = next(iter((*objects, *table.values)), 0)
        self.draw(state.drawn_class)
        self._reading.start()

    # Labels.

    def _proposed(self, places: Sequence[int]) -> list[Box]:
        """Return those of the boxes at *places* that have a mask to accept."""
        proposed = set(self._state.places("proposed")) & set(places)
        return [] if self.sheet is None else self.sheet.boxes(sorted(proposed))

    def _accept(self, boxes: Sequence[Box], outside: bool = False) -> Labels:
        sheet = self.sheet
        assert sheet is not None
        labels = self.labels if self.labels is not None else self.new_labels()
        assert labels is not None
        sheet.results.accept(
            boxes,
            self._accepted.open(sheet.image, labels),
            self._state.settings.background,
            outside_of=self._drawn_on(sheet.image) if outside else None,
        )
        self.kept.keep_labels(labels)
        self._stale |= sheet.results.planes
        self._show_masks()
        return labels

    def _drawn_on(self, image: Image) -> list[Box]:
        """Return the boxes of now of all layers that were worked on with an image."""
        sheets = [sheet for sheet in self._sheets if sheet.image is image]
        for sheet in sheets:
            if sheet is not self.sheet:
                self._show_sheet(sheet, sheet.read(self.classes.table))
        return [box for sheet in sheets for box in sheet.boxes()]

    @telling()
    def _look_at_labels(self) -> None:
        """Propose again what is gone from labels."""
        if self.is_closed:
            return
        self._accepted.forget_gone()
        for sheet in self._sheets:
            self._show_sheet(sheet, sheet.results.refresh_accepted())
        self._show_masks()

    # Masks.

    @telling()
    def _on_made(self, sheet: BoxSheet, box: Box) -> None:
        self._show_sheet(sheet, {box.plane})

    def _show_sheet(self, sheet: BoxSheet, planes: set[tuple[int, ...]]) -> None:
        """Show planes that have changed: of the sheet that is worked on, soon."""
        if sheet is self.sheet:
            self._stale |= planes
            self._showing.start()
        elif planes:
            sheet.show(planes, None, self._state.map_visible)

    @telling()
    def _show_masks(self) -> None:
        """Show the masks of planes that have changed."""
        self._showing.stop()
        sheet, stale = self.sheet, self._stale
        self._stale = set()
        if sheet is not None and stale:
            sheet.show(stale, self.labels, self._state.map_visible)
        self._show_state()

    def _preview_soon(self) -> None:
        if self._state.preview and self._state.settings.method not in FIXED_CRF:
            self._previewing.start()

    @telling()
    def _preview(self) -> None:
        """Draw the first of the picked boxes anew."""
        sheet = self.sheet
        boxes = [] if sheet is None else sheet.boxes(self._state.picked)
        if sheet is not None and boxes and self._state.engine == "ready":
            self._making.refine(sheet, boxes[0])

    def _on_progress(self) -> None:
        # Not while an event is taken in: napari lets others in when it draws its bar.
        if not self.is_closed:
            self._telling.start()

    def _show_progress(self) -> None:
        self._activity.show(self._state.progress)

    # What the engine tells.

    @telling()
    def _on_told(self, event: Any) -> None:
        if self.is_closed:
            return
        if isinstance(event, messages.Ready):
            self._state.engine = "ready"
            devices = zip(event.devices, event.device_names, strict=True)
            self._state.devices = tuple(devices)
        if isinstance(event, messages.Failed):
            if event.details:
                trace = without_words(event.details)
                logger.error("%s failed\n%s", event.request, trace)
            if DEVICE_LOST.search(event.message):
                self._link.restart(
                    f"The device that computes does not work any more ({event.message})"
                )
                return
        self._making.take(event)
        if isinstance(event, messages.Ready | messages.Failed):
            self._show_state()

    @telling()
    def _on_slow(self, sentence: str) -> None:
        if not self.is_closed:
            self._state.starting = sentence
            self._show_state()

    @telling()
    def _on_died(self, sentence: str, restarting: bool) -> None:
        logger.error(sentence)
        self._state.engine = "starting" if restarting else "broken"
        self._state.starting = STARTING
        self._making.lose_engine()
        self._state.status = sentence
        show_error(sentence)
        self._show_state()

    # What the dock shows.

    @telling()
    def _show_state(self) -> None:
        """Bring rows, and what can be done, into the state."""
        sheet, state = self.sheet, self._state
        rows = () if sheet is None else sheet.rows(self.classes.table)
        picked = tuple(place for place in state.picked if place < len(rows))
        if state.picked != picked:
            state.picked = picked
        if state.rows != rows:
            state.rows = rows
        state.can_undo = sheet is not None and sheet.results.can_undo
        state.cannot_generate = self._why_not(None)
        state.cannot_redo = self._why_not(state.picked)
        state.cannot_train = self._why_not_train()

    def _why_not(self, places: Sequence[int] | None) -> str:
        """Say why no masks can be made of all boxes, or of those at *places*."""
        state, sheet = self._state, self.sheet
        if state.engine == "broken":
            return f"The part that computes has stopped; see {log_file()}."
        if state.engine == "starting":
            return state.starting
        if self.image is None:
            return "Open an image first."
        if sheet is None:
            return "Press New boxes, then draw a box around each object."
        if sheet.problem:
            return sheet.problem
        if places is not None and not places:
            return "Pick a box first, in the list or on the image."
        boxes = sheet.boxes(places)
        if not boxes:
            return "Draw a box around each object."
        background = state.settings.background
        if background in {box.class_value for box in boxes}:
            name = self.classes.table.by_value(background).name
            return (
                f"'{name}' has boxes, so it cannot be what lies outside of them; "
                "choose something else under Outside of boxes."
            )
        encoder = encoder_of_masks(state.settings, state.devices)
        missing = why_missing(encoder, state.settings.weights, "Features")
        if missing:
            return missing
        return "" if places is None else self._making.why_not_some(sheet, boxes)

    def _why_not_train(self) -> str:
        state, sheet = self._state, self.sheet
        made = state.places("proposed", "accepted")
        if sheet is None or not made:
            return "Generate masks first."
        drawn = len(state.places("drawn"))
        if drawn:
            # Else a network would learn that such objects are background.
            return (
                "1 box has no mask yet: generate or delete it."
                if drawn == 1
                else f"{drawn} boxes have no mask yet: generate or delete them."
            )
        values = {row.class_value for row in (state.rows[place] for place in made)}
        if len(values - {0}) < 2 and not state.settings.background:
            return (
                "A network needs two classes to tell apart; choose what lies outside "
                "of the boxes."
            )
        return ""


def _events(shapes: Shapes) -> list[Any]:
    """Return the events that come when shapes or their classes change."""
    return [shapes.events.data, shapes.events.properties]
