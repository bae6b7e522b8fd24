"""Train, attack, evaluate and explain image classifiers that know where to be robust.

The public names are imported on first use, so that ``import counterpart`` costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api.evaluation import audit, evaluate
    from .api.explanation import explain
    from .api.exporting import export
    from .api.prediction import predict
    from .api.runs import runs
    from .api.sharing import share
    from .api.sweeping import sweep
    from .api.training import load, train
    from .api.where import where
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
        patch,
        pgd,
        random_search,
        rays,
        sparse_pgd,
        square,
        transfer,
        worst_case,
    )
    from .batch import Batch
    from .budget import L0, L1, L2, Linf, Patch
    from .catalogue.published import published_models
    from .config import Config
    from .contracts import Attacked, Objective, Probe
    from .importance.masked_budget import masked_budget
    from .losses.adversarial import mart_loss, trades_loss
    from .models.adapters import as_classifier
    from .models.inference import InferenceView
    from .models.normalize import ImageClassifier
    from .models.straight_through import straight_through
    from .report import write_report
    from .saliency.cam import layer_map
    from .seeding import Keys
else:
    _HOMES = {
        "Attacked": "contracts",
        "Batch": "batch",
        "Config": "config",
        "ImageClassifier": "models.normalize",
        "InferenceView": "models.inference",
        "Keys": "seeding",
        "L0": "budget",
        "L1": "budget",
        "L2": "budget",
        "Linf": "budget",
        "Objective": "contracts",
        "Patch": "budget",
        "Probe": "contracts",
        "audit": "api.evaluation",
        "evaluate": "api.evaluation",
        "explain": "api.explanation",
        "export": "api.exporting",
        "load": "api.training",
        "predict": "api.prediction",
        "runs": "api.runs",
        "share": "api.sharing",
        "sweep": "api.sweeping",
        "published_models": "catalogue.published",
        "train": "api.training",
        "where": "api.where",
        "as_classifier": "models.adapters",
        "layer_map": "saliency.cam",
        "mart_loss": "losses.adversarial",
        "masked_budget": "importance.masked_budget",
        "straight_through": "models.straight_through",
        "trades_loss": "losses.adversarial",
        "transfer": "attacks",
        "worst_case": "attacks",
        "write_report": "report",
    }

    def __getattr__(name: str) -> object:
        """Import a public name (PEP 562); attacks are those of the catalogue, and come with their front door."""
        from importlib import import_module

        home = _HOMES.get(name) or ("attacks" if name in __all__ else None)
        if home is None:
            raise AttributeError(f"module 'counterpart' has no attribute {name!r}")
        thing = getattr(import_module(f".{home}", __name__), name)
        if home == "attacks":
            from .attacks.front_door import front_door

            thing = front_door(thing)
        globals()[name] = thing  # so that it is the same object each time
        return thing

    def __dir__() -> list[str]:
        """The public names."""
        return __all__


__all__ = [
    "L0",
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
    "Patch",
    "Probe",
    "__version__",
    "apgd",
    "as_classifier",
    "audit",
    "auto_attack",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "evaluate",
    "explain",
    "export",
    "fab",
    "fgsm",
    "fmn",
    "layer_map",
    "load",
    "mart_loss",
    "masked_budget",
    "minimum_margin",
    "patch",
    "pgd",
    "predict",
    "published_models",
    "random_search",
    "rays",
    "runs",
    "share",
    "sparse_pgd",
    "square",
    "straight_through",
    "sweep",
    "trades_loss",
    "train",
    "transfer",
    "where",
    "worst_case",
    "write_report",
]
