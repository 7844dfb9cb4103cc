"""Lightning Fabric, imported in a third of its time.

At its import it asks which version of torchmetrics there is, and for that imports all of it: torchvision's models,
transformers and scipy with it, some five seconds. It is told the version instead.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

asked = ModuleType("torchmetrics")
asked.__version__ = metadata.version("torchmetrics")  # type: ignore[attr-defined]
stands_in = sys.modules.setdefault("torchmetrics", asked) is asked
try:
    from lightning_fabric import Fabric as Fabric
    from lightning_fabric.utilities.rank_zero import rank_zero_only as rank_zero_only
finally:
    if stands_in:
        del sys.modules["torchmetrics"]
