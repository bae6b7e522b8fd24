"""Perturbation budgets, which say where and how far an attacker may move each pixel.

Shapes: B images, C channels, H x W pixels. Images are floats in [0, 1] and a radius is in that same unit for
``Linf`` (so 8/255, not 8), and in the norm of the whole perturbation for ``L2`` and ``L1``. For ``L0`` it is a number
of pixels, and for ``Patch`` the side of a window.

Only this room decides what is allowed. All budgets share ``norm``, ``radius``, ``size``, ``project``,
``sample``, ``step``, ``advance``, ``distance``, ``contains`` and ``select``. What ``project`` returns always passes
``contains``: bounds are rounded inwards, so a float32 image never leaves a budget by the last bit.

Attacks that look for the nearest adversarial image measure in units of the radius: they divide what each pixel moves
by ``radius``, and an image is allowed where its ``distance`` is at most 1.
"""

from typing import TypeAlias

from .arithmetic import RELATIVE_TOLERANCE as RELATIVE_TOLERANCE
from .arithmetic import Images as Images
from .balls import L1 as L1
from .balls import L2 as L2
from .balls import Ball as Ball
from .free_pixels import L0 as L0
from .free_pixels import FreePixels as FreePixels
from .free_pixels import Patch as Patch
from .per_pixel import Linf as Linf

Budget: TypeAlias = Linf | Ball | FreePixels
NORMS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0, "patch": Patch}
