"""A network as a graph without the batch norms that its convolutions can take over.

The trunk is traced with torch.fx, so that each convolution whose output enters nothing but a batch norm takes that
batch norm into its own weights.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn

from .normalize import ImageClassifier
from .shown import Outputs


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name. One that has several names is there under each."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return parameters | dict(model.named_buffers(remove_duplicate=False))


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Shapes in signatures are not checked inside the block: the stand-ins of a trace have none."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def trace(copy: nn.Module) -> tuple[fx.GraphModule, Outputs]:
    """Trace the trunk as a graph whose modules are those of ``copy``; and say what each of them returned in it."""
    body = copy.backbone if isinstance(copy, ImageClassifier) else copy
    assert isinstance(body, nn.Module)
    outputs: Outputs = {}
    leaves: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._BatchNorm,)
    functions: list[Callable[..., Any]] = []
    if _uses_timm(copy):
        from timm.layers import get_notrace_functions, get_notrace_modules

        leaves += tuple(get_notrace_modules())
        functions += get_notrace_functions()

    class Tracer(fx.Tracer):
        traced_func_name = "forward_features" if isinstance(copy, ImageClassifier) else "forward"

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, leaves) or super().is_leaf_module(m, module_qualified_name)

        def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
            output = super().call_module(m, forward, args, kwargs)
            outputs.setdefault(m, []).append(output.node if isinstance(output, fx.Proxy) else output)
            return output

    with _shapes_unchecked():
        graph = Tracer(autowrap_functions=tuple(functions)).trace(body)
    return fx.GraphModule(body, graph), outputs


def _uses_timm(model: nn.Module) -> bool:
    return any(type(module).__module__.startswith("timm.") for module in model.modules())


@dataclass(frozen=True)
class Fold:
    """A convolution of the view, and the names in the model of the two layers that it stands for.

    Attributes:
        target: the convolution.
        conv: the name of the model's convolution.
        norm: the name of the batch norm after it.
        eps: the small number in that batch norm's denominator.
    """

    target: nn.Conv2d
    conv: str
    norm: str
    eps: float

    @property
    def names(self) -> set[str]:
        """The names of the model's parameters and buffers that it stands for."""
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{self.conv}.weight", f"{self.conv}.bias", *(f"{self.norm}.{name}" for name in norm)}


def fold(graph: fx.GraphModule, copy: nn.Module) -> list[Fold]:
    """Remove from the graph every batch norm that the convolution before it can take over."""
    names = {module: name for name, module in copy.named_modules()}
    convolutions, norms = _foldable(copy)
    modules = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    folds = []
    for node in list(graph.graph.nodes):
        norm, before = modules.get(str(node.target)), node.args[0] if node.args else None
        if node.op != "call_module" or type(norm) not in norms or not isinstance(before, fx.Node):
            continue
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if type(conv) not in convolutions or len(before.users) > 1:
            continue
        if calls[node.target] > 1 or calls[before.target] > 1 or conv not in names or norm not in names:
            continue
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        if norm.running_mean is None or not norm.affine:
            continue
        folds.append(Fold(conv, names[conv], names[norm], norm.eps))
        if conv.bias is None:
            conv.bias = nn.Parameter(torch.zeros_like(norm.bias), requires_grad=False)
        graph.set_submodule(str(node.target), norms[type(norm)](norm))
    graph.recompile()
    return folds


def _foldable(model: nn.Module) -> tuple[set[type], dict[type, Callable[[Any], nn.Module]]]:
    """Types of convolution, and of batch norm with what is left of it. Subclasses may do more: no fold."""
    convolutions: set[type] = {nn.Conv2d}
    norms: dict[type, Callable[[Any], nn.Module]] = {
        kind: lambda norm: nn.Identity() for kind in (nn.BatchNorm2d, nn.SyncBatchNorm)
    }
    if _uses_timm(model):
        from timm.layers import BatchNormAct2d, Conv2dSame

        convolutions.add(Conv2dSame)
        norms[BatchNormAct2d] = lambda norm: norm.act
    return convolutions, norms


def refold(folds: list[Fold], source: dict[str, Tensor]) -> None:
    """Compute a fold's weights: norm(conv(x)) = scale conv(x) + bias - scale mean, scale = weight / sqrt(var + eps)."""

    def gather(name: str) -> list[Tensor]:
        return [source[f"{fold.norm}.{name}"] for fold in folds]

    deviations = torch._foreach_sqrt(torch._foreach_add(gather("running_var"), [fold.eps for fold in folds]))
    scales = torch._foreach_div(gather("weight"), deviations)
    weights = [source[f"{fold.conv}.weight"] for fold in folds]
    kernels = torch._foreach_mul(weights, [scale.view(-1, 1, 1, 1) for scale in scales])
    means = [
        mean - source[f"{fold.conv}.bias"] if f"{fold.conv}.bias" in source else mean
        for fold, mean in zip(folds, gather("running_mean"), strict=True)
    ]
    biases = torch._foreach_sub(gather("bias"), torch._foreach_mul(means, scales))
    targets = [(fold.target.weight, fold.target.bias) for fold in folds]
    copy_into([weight for weight, _ in targets], kernels)
    copy_into([bias for _, bias in targets if bias is not None], biases)


def copy_into(targets: list[Tensor], values: list[Tensor] | tuple[Tensor, ...]) -> None:
    """Copy each value into its target, in place."""
    if targets:
        torch._foreach_copy_(targets, values)
