"""The jobs of the commands, which work on run folders and models.

Each job is imported on its first use, so that a command does not wait for the imports of another job.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .auditing import audit_named as audit_named
    from .corruptions import evaluate_corruptions as evaluate_corruptions
    from .exporting import Exported as Exported
    from .exporting import export_named as export_named
    from .judging import Judged as Judged
    from .judging import evaluate as evaluate
    from .prediction import Prediction as Prediction
    from .prediction import predict as predict
    from .profiling import WhereOptions as WhereOptions
    from .profiling import profile_named as profile_named
    from .pseudo_labels import PseudoLabelled as PseudoLabelled
    from .pseudo_labels import pseudo_label as pseudo_label
    from .published_results import compare_with_published as compare_with_published
    from .sharing import Shared as Shared
    from .sharing import bundle_run as bundle_run
    from .sharing import share_named as share_named
    from .targets import open_targets as open_targets
    from .training import Trained as Trained
    from .training import train as train
    from .training import train_seeds as train_seeds
    from .verification import check_run as check_run
    from .verification import verify_run as verify_run
else:
    _HOMES = {
        "Exported": "exporting",
        "Judged": "judging",
        "Prediction": "prediction",
        "PseudoLabelled": "pseudo_labels",
        "Shared": "sharing",
        "Trained": "training",
        "WhereOptions": "profiling",
        "audit_named": "auditing",
        "bundle_run": "sharing",
        "check_run": "verification",
        "compare_with_published": "published_results",
        "evaluate": "judging",
        "evaluate_corruptions": "corruptions",
        "export_named": "exporting",
        "open_targets": "targets",
        "predict": "prediction",
        "profile_named": "profiling",
        "pseudo_label": "pseudo_labels",
        "share_named": "sharing",
        "train": "training",
        "train_seeds": "training",
        "verify_run": "verification",
    }

    def __getattr__(name: str) -> object:
        """The job of this name, imported now (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'counterpart.jobs' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
