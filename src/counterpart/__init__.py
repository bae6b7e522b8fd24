"""Train, attack, evaluate and explain image classifiers that know where to be robust.

The public names are imported on first use, so that ``import counterpart`` costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .attacks import (
        apgd,
        auto_attack,
        carlini_wagner,
        ddn,
        deepfool,
        fab,
        fgsm,
        fmn,
        minimum_margin,
        pgd,
        random_search,
        rays,
        square,
        transfer,
        worst_case,
    )
    from .batch import Batch
    from .budget import L1, L2, Linf
    from .config import Config
    from .models.inference import InferenceView
    from .models.normalize import ImageClassifier
    from .protocols import Attacked, Objective, Probe
    from .report import write_report
    from .seeding import Keys
else:
    _HOMES = {
        "Attacked": "protocols",
        "Batch": "batch",
        "Config": "config",
        "ImageClassifier": "models.normalize",
        "InferenceView": "models.inference",
        "Keys": "seeding",
        "L1": "budget",
        "L2": "budget",
        "Linf": "budget",
        "Objective": "protocols",
        "Probe": "protocols",
        "apgd": "attacks",
        "auto_attack": "attacks",
        "carlini_wagner": "attacks",
        "ddn": "attacks",
        "deepfool": "attacks",
        "fab": "attacks",
        "fgsm": "attacks",
        "fmn": "attacks",
        "minimum_margin": "attacks",
        "pgd": "attacks",
        "random_search": "attacks",
        "rays": "attacks",
        "square": "attacks",
        "transfer": "attacks",
        "worst_case": "attacks",
        "write_report": "report",
    }

    def __getattr__(name: str) -> object:
        """Import a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'counterpart' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)

    def __dir__() -> list[str]:
        """The public names."""
        return __all__


__all__ = [
    "L1",
    "L2",
    "Attacked",
    "Batch",
    "Config",
    "ImageClassifier",
    "InferenceView",
    "Keys",
    "Linf",
    "Objective",
    "Probe",
    "__version__",
    "apgd",
    "auto_attack",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "fab",
    "fgsm",
    "fmn",
    "minimum_margin",
    "pgd",
    "random_search",
    "rays",
    "square",
    "transfer",
    "worst_case",
    "write_report",
]
