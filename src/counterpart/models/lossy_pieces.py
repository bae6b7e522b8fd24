"""Pieces of a network whose backward pass loses information: quantisers, top-k, thresholds, sparsifiers.

Each module is tried by itself, on activations that it meets in the network. Its input is moved a little. Where its
output moves otherwise than its gradient says, and does so however little the input moves, the gradient cannot be
followed: the output is flat and jumps (a quantiser), or jumps where values enter and leave (top-k, thresholds). A ReLU
has kinks, not jumps, and passes: the less its input moves, the better its gradient tells.

The gradient of such a piece is then taken from something smoother, which is backward pass differentiable approximation
(BPDA; Athalye et al. 2018, arXiv 1802.00420, section 4.1).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..seeding import derive, seeded
from .borrowed import borrowed

# How far inputs are moved, as shares of their root mean square, until the output moves.
MOVES = (1e-3, 1e-2, 1e-1)
# How far from where they lie they are moved first: many are exactly 0, where a ReLU has its kink.
ASIDE = 0.03
LOST = 0.5  # the share of the output's movement that the gradient does not foretell from which on a piece is lossy
PROBES = 8  # the random directions in the output that movements are compared along
ROUNDING: dict[Any, str] = {
    function: name
    for name in ("round", "floor", "ceil", "trunc", "sign")
    for function in (getattr(torch, name), getattr(Tensor, name))
}
Smooth = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LossyPiece:
    """A piece of a network whose gradient does not say how its output moves.

    Attributes:
        name: the name of the module in the network, "" for the network itself.
        kind: the name of its type.
        lost: the share of the output's movement that the gradient does not foretell.
        stand_in: the smoother function whose gradient is taken instead of the module's; None where there is none.
        functions: the functions of torch in its own forward that round, and whose gradient the identity's is taken for.
    """

    name: str
    kind: str
    lost: float
    stand_in: Smooth | None
    functions: tuple[str, ...] = ()

    @property
    def can_be_passed(self) -> bool:
        """Whether something smoother stands in for it."""
        return self.stand_in is not None or bool(self.functions)

    def __str__(self) -> str:
        return f"{self.name or 'the model itself'} ({self.kind})"


def find_lossy_pieces(model: nn.Module, images: Float[Tensor, "b c h w"]) -> list[LossyPiece]:
    """The smallest pieces of a model, in eval mode, whose gradient does not say how their outputs move.

    Args:
        model: the network. A module is looked at where it turns one tensor into another.
        images: some images in [0, 1] that attacks meet: moved at random, since clean pixels may lie on whole levels.
    """
    lossy: list[LossyPiece] = []
    with borrowed(model):
        for name, module, inputs in reversed(
            _calls(model, images)
        ):  # children come before those that hold them
            prefix = f"{name}." if name else ""
            if any(piece.name.startswith(prefix) for piece in lossy):
                continue
            with _Rounding(through=False) as rounding:
                lost = _lost(module, inputs)
            if lost > LOST:
                stand_in = None if rounding.seen else _stand_in(module, inputs)
                lossy.append(LossyPiece(name, type(module).__name__, lost, stand_in, tuple(rounding.seen)))
    return [*reversed(lossy)]


class StandIn:
    """A model as a ``Classifier`` whose lossy pieces pass gradients of their stand-ins; its answers stay the same.

    Args:
        model: the network.
        pieces: what ``find_lossy_pieces`` found in it.
    """

    def __init__(self, model: nn.Module, pieces: Sequence[LossyPiece]) -> None:
        self._model = model
        self._pieces = {piece.name: piece.stand_in for piece in pieces if piece.stand_in is not None}

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The class logits (B, K) in float32."""
        with borrowed(self._model), _hooked(self._model, self._pieces), _Rounding(through=True):
            logits: Tensor = self._model(images)
        return logits.float()


@contextmanager
def _hooked(model: nn.Module, pieces: dict[str, Smooth]) -> Iterator[None]:
    inputs: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        (inputs[module],) = arguments
        return (arguments[0].clone(),)  # which the module may write into

    handles = []
    for name, module in model.named_modules():
        if name not in pieces:
            continue

        def after(module: nn.Module, _: Any, output: Tensor, smooth: Smooth = pieces[name]) -> Tensor:
            return _through(output, smooth(inputs.pop(module)))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _through(value: Tensor, smooth: Tensor) -> Tensor:
    return value.detach() + (smooth - smooth.detach())  # adds exactly 0


class _Rounding(TorchFunctionMode):
    """A block that notes which functions round a tensor of the graph, or lets gradients through them."""

    def __init__(self, through: bool) -> None:
        super().__init__()
        self.through = through
        self.seen: dict[str, None] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in place of each function."""
        value = function(*args, **(kwargs or {}))
        if function in ROUNDING:
            self.seen[ROUNDING[function]] = None
            return _through(value, args[0]) if self.through else value
        return value


def _calls(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """Each module that turns one tensor into another, with the first that it met; parents come first."""
    first_inputs: dict[nn.Module, Tensor] = {}
    maps: set[nn.Module] = set()

    def before(module: nn.Module, arguments: Any) -> None:
        if len(arguments) == 1 and isinstance(arguments[0], Tensor) and arguments[0].is_floating_point():
            first_inputs.setdefault(module, arguments[0].detach().clone())

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if module in first_inputs and isinstance(output, Tensor) and output.is_floating_point():
            maps.add(module)

    handles = [module.register_forward_pre_hook(before) for module in model.modules()]
    handles += [module.register_forward_hook(after) for module in model.modules()]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, module, first_inputs[module]) for name, module in model.named_modules() if module in maps]


def _lost(module: nn.Module, inputs: Tensor) -> float:
    """The share of a module's movement that its gradient does not foretell, as a root mean square; 0 if it stays."""
    generator = torch.Generator().manual_seed(derive(0, "lossy pieces"))
    size = inputs.square().mean().sqrt()
    inputs = inputs + torch.randn(inputs.shape, generator=generator).to(inputs) * size * ASIDE
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = _run(module, leaf)
    if not torch.equal(output.detach(), _run(module, inputs).detach()):
        return 0.0  # it draws by other generators than torch's: no small movement can be told
    for share in MOVES:
        move = torch.randn(inputs.shape, generator=generator).to(inputs) * size * share
        moved = (_run(module, inputs + move) - output).detach()
        if bool((moved != 0).any()):
            break
    else:
        return 0.0
    wrong, whole = torch.zeros(()), torch.zeros(())
    for _ in range(PROBES):
        direction = torch.randn(output.shape, generator=generator).to(output)
        foretold = torch.zeros(len(inputs), device=inputs.device)
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output, leaf, direction, retain_graph=True, allow_unused=True)
            if gradient is not None:
                foretold = (gradient * move).flatten(1).sum(dim=1)
        along = (direction * moved).flatten(1).sum(dim=1)
        wrong, whole = wrong + (along - foretold).square().sum(), whole + along.square().sum()
    return float((wrong / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt())


def _run(module: nn.Module, inputs: Tensor) -> Tensor:
    """The output of a module, whose draws are the same in every run."""
    with seeded(derive(0, "lossy pieces", 1)):
        output: Tensor = module(inputs.clone())  # which it may write into
    return output


@torch.no_grad()
def _stand_in(module: nn.Module, inputs: Tensor) -> Smooth | None:
    """A smoother function of the same shapes: the identity, or a linear map of the channels that fits best."""
    output = _run(module, inputs)
    if output.shape == inputs.shape:
        return lambda x: x
    if output.shape[2:] != inputs.shape[2:] or output.ndim < 3:
        return None
    rows = inputs.movedim(1, -1).flatten(0, -2).double()
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    wanted = output.movedim(1, -1).flatten(0, -2).double()
    normal = rows.T @ rows
    normal.diagonal().add_(1e-6 * normal.diagonal().mean())
    weight = torch.linalg.solve(normal, rows.T @ wanted)[:-1].to(inputs)
    return lambda x: (x.movedim(1, -1) @ weight).movedim(-1, 1)
