"""The methods of making pseudo-masks by name, and which of them are alike.

In a module without torch, so that the window can ask too.
"""

from __future__ import annotations

from typing import Literal

#: ``box``, ``ellipse``: nothing but the box is looked at. ``grabcut``: GrabCut+ of
#: Khoreva et al. 2017. ``sdi-box``: their recursive training. ``crf-box``: Bbox-Seg of
#: Papandreou et al. 2015. ``cam``, ``acol``: region mining of Fan et al. 2022.
Method = Literal["box", "ellipse", "grabcut", "sdi-box", "crf-box", "cam", "acol"]

#: Methods of region mining: a network that is kept, with a backbone.
MINING: frozenset[Method] = frozenset({"cam", "acol"})

#: Methods that train a network in rounds, on masks that the CRF has refined.
IN_ROUNDS: frozenset[Method] = frozenset({"sdi-box", "crf-box"})

#: Methods that learn from all boxes together, and so have a limit of time.
LEARNING: frozenset[Method] = MINING | IN_ROUNDS

#: Methods that refine by a dense CRF unless it is switched off.
REFINED: frozenset[Method] = LEARNING

#: Methods without a choice: a box has no map to refine, ``crf-box`` is a CRF.
FIXED: frozenset[Method] = frozenset({"box", "crf-box"})

#: Methods that tell background inside of a box; of the others only foreground is sure.
TELLING_BACKGROUND: frozenset[Method] = IN_ROUNDS | {"grabcut"}
