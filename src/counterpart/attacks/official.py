"""The published AutoAttack package as attacks of ours, so that a user can compare on the spot (extra ``bench``)."""

import logging
from functools import partial

import torch
from torch import Tensor

from ..budget import Budget
from ..contracts import Attacked, Classifier, NamedAttack, Probe
from ..errors import UserError
from ..seeding import Keys, derive
from .auto_attack import key_of

SUITES = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "few-classes": ("apgd-ce", "fab", "square"),
}
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def suite(version: str, classes: int) -> list[NamedAttack]:
    """The attacks of a version, each of which the package runs.

    Its targets are capped at K - 1, where the package as it is would stop with an index error.

    Raises:
        UserError: the package is not installed, or has no such suite for so few classes.
    """
    try:
        import pyautoattack  # noqa: F401
    except ImportError:
        raise UserError(
            "evaluate.engine official needs the published package: pip install 'counterpart[bench]'"
        ) from None
    names = SUITES[version]
    if "apgd-t" in names:
        needs = 4
    elif "apgd-dlr" in names:
        needs = 3
    else:
        needs = 2
    if classes < needs:
        raise UserError(
            f"the published AutoAttack {version} needs {needs} classes, this model has {classes}: "
            "use autoattack-few-classes, or --evaluate.engine counterpart."
        )
    return [
        NamedAttack(
            f"official {name}",
            partial(official, attack=name, version=version),
            f"official {name}",
            by_gradient=name != "square",
            key=key_of(name),
        )
        for name in names
    ]


def official(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    attack: str,
    version: str,
) -> Attacked:
    """Run an attack of the published package on a batch.

    Args:
        model: maps images in [0, 1] to logits (B, K).
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: a budget with one radius for all pixels, the only kind that the package knows.
        keys: their seed becomes the package's, whose draws the images of a batch share.
        start: refused, because the package takes none.
        attack: the package's attack, such as "apgd-ce".
        version: the version that sets its options, such as "standard".

    Returns:
        What the package returns, and the passes that it made: those of the batch, divided by its images.
    """
    from pyautoattack import AutoAttack

    if start is not None:
        raise ValueError("the published AutoAttack takes no start.")
    frozen = getattr(budget, "movable", None) is not None
    if frozen or (isinstance(budget.eps, Tensor) and budget.eps.numel() > 1):
        raise ValueError("the published AutoAttack knows one radius for all pixels: use engine counterpart.")
    passes = torch.zeros(2, dtype=torch.int64)  # images forwards, images backwards

    def counting(x: Tensor) -> Tensor:
        passes[0] += len(x)
        logits = model(x)

        def count(
            _gradient: Tensor,
        ) -> None:  # a hook must return nothing, else its value would replace the gradient
            passes[1] += len(x)

        if logits.requires_grad:
            logits.register_hook(count)  # type: ignore[no-untyped-call]
        return logits

    with torch.no_grad():
        classes = counting(images[:1]).shape[1]
    # The package logs its doubts anew for each batch. Our own checks say them once.
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    runner = AutoAttack(
        counting,
        norm=NORMS[budget.norm],
        eps=float(budget.eps),
        seed=derive(keys.seed, keys.attack) % 2**31,
        version="standard" if version == "few-classes" else version,
        device=images.device,
    )
    runner.attacks_to_run = [attack]
    runner.apgd_targeted.n_target_classes = min(runner.apgd_targeted.n_target_classes, classes - 1)
    runner.fab.n_target_classes = min(runner.fab.n_target_classes, classes - 1)
    attacked, _ = runner.run_standard_evaluation(images, labels, batch_size=len(images))
    forwards, backwards = (torch.full_like(labels, int(p) // len(labels)) for p in passes)
    return Attacked(attacked.detach(), forwards, backwards)
