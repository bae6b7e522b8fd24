"""A training step that is compiled as a whole: the attack, the loss and its gradients are one graph without a break.

The optimiser follows in its fused kernel. Seeds of draws, and radii that change, lie in tensors that every call is
given anew: no noise is repeated, and a radius may grow. What cannot be compiled runs as it is, for a reason that is
said.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import devices, distributed
from ..batch import Batch
from ..contracts import Loss
from ..models.inference import InferenceView
from ..seeding import ListedKeys, TensorKeys, derive, seeded, seeds_of
from .step import LoopOptions, Phase, StepRadii

_log = logging.getLogger(__name__)


class WholeStep:
    """The passes of a phase's steps as one compiled graph.

    Attributes:
        reason: why it is not used; None as long as it is.
    """

    def __init__(self, phase: Phase, model: nn.Module, view: InferenceView, options: LoopOptions) -> None:
        self._phase, self._model, self._view, self._options = phase, model, view, options
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._draws: dict[tuple[str, int, int], int] | None = None
        # reduce-overhead: by CUDA graphs.
        mode = "reduce-overhead" if options.device.type == "cuda" else "default"
        self._graph = torch.compile(self._passes, fullgraph=True, dynamic=False, mode=mode)
        self.reason = why_not(options, view.form)
        self._say()

    def takes(self, batch: Batch) -> bool:
        """Whether the graph is made for a batch. A last, smaller one runs as it is."""
        return self.reason is None and len(batch) == self._options.batch_size

    def __call__(
        self, batch: Batch, epoch: int, step: int, radii: StepRadii | None
    ) -> tuple[Loss, Mapping[str, Tensor]] | None:
        """The loss on the attacked batch and what the attack counted; the gradients lie at the parameters.

        Returns:
            None where the graph cannot be made: ``reason`` says why.
        """
        options, root = self._options, f"train/{epoch}"
        if self._draws is None:
            self._draws = self._list_draws(batch, root)
        seeds = seeds_of(options.seed, root, self._draws).to(options.device, non_blocking=True)
        fields = (batch.images, batch.labels, batch.index, batch.parts, batch.has_parts, batch.importance)
        self._model.train()
        dropout = seeded(derive(options.seed, "dropout", epoch, step, 0), options.device)
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True), dropout:
                total, terms, counts, gradients = self._graph(seeds, self._on_device(radii), *fields)
        except RuntimeError as error:  # of the compiler, which has classes of its own for many of them
            if devices.is_out_of_memory(error) or not _is_of_the_compiler(error):
                raise
            self.reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            self._say()
            return None
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = _laid_out_like(parameter, gradient)
        return Loss(total, terms), counts

    def _on_device(self, radii: StepRadii | None) -> Tensor | None:
        """The radii that are stated, beside the images; in float64, so that they round where Python's numbers would."""
        if radii is None:
            return None
        device = self._options.device
        kind = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        stated = torch.tensor([value for value in radii if value is not None], dtype=kind)
        return stated.to(device, non_blocking=True)

    def _passes(self, seeds: Tensor, radii: Tensor | None, *fields: Any) -> Any:
        """What is compiled: the attack, the loss, and the gradient of every parameter."""
        assert self._draws is not None
        batch, device = Batch(*fields), self._options.device.type
        keys = TensorKeys(self._options.seed, "", batch.index, self._draws, seeds)
        objective = self._phase.objective
        if radii is not None:
            assert self._phase.at_radii is not None
            objective = self._phase.at_radii(StepRadii(*radii.unbind()))
        perturbed = objective.perturb(self._view, batch, keys)
        with torch.autocast(device, torch.bfloat16, enabled=self._options.precision == "bf16"):
            loss = objective.loss(self._model, batch, perturbed)
        gradients = torch.autograd.grad(loss.total, self._parameters, allow_unused=True)
        terms = {name: value.detach() for name, value in loss.terms.items()}
        return loss.total.detach(), terms, dict(perturbed.counts), gradients

    def _list_draws(self, batch: Batch, root: str) -> dict[tuple[str, int, int], int]:
        """The draws of an attack, listed by one that is made for this alone, and that checks the images at the door."""
        keys = ListedKeys(self._options.seed, root, batch.index, root)
        self._phase.objective.perturb(self._view, batch, keys)
        return {draw: place for place, draw in enumerate(keys.draws)}

    def _say(self) -> None:
        if self.reason is not None:
            _log.warning("training steps are not compiled as a whole: %s", self.reason)


def why_not(options: LoopOptions, form: str) -> str | None:
    """Why the steps of a run cannot be compiled as a whole; None if they can."""
    if distributed.world_size() > 1:
        return "several processes sum gradients and statistics between the passes"
    if options.awp:
        return "weight perturbation (train.awp) puts weights back between two passes"
    if form not in ("fast", "contiguous"):
        return f"the attack runs on a view of the form {form}, which is the model itself"
    return None


def _is_of_the_compiler(error: RuntimeError) -> bool:
    """Whether an error comes from compiling and not from what was compiled."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _laid_out_like(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """A gradient in the memory format of its parameter, which fused optimisers expect."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
