"""The losses by name.

In a module without torch, so that the window can ask too.
"""

from __future__ import annotations

from typing import Literal

#: ``ce``: cross-entropy. ``dice``: of V-Net. ``l1l2``: norms of the error. See
#: :mod:`~napari_sparseseg.learning.losses`.
Loss = Literal["ce", "dice", "l1l2"]
