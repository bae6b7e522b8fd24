"""A frozen, fast copy of a model for attacks: batch norm folded into convolutions, reduced precision, compiled.

The trunk (everything before the head) is traced with torch.fx, so that each convolution whose output enters
nothing but a batch norm takes that batch norm into its own weights. The head runs in float32 whatever the
precision, so that logits, maps and gradients keep their resolution.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import jaxtyping
import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from .. import devices
from ..errors import UserError
from ..protocols import Attended, Attention, PartModel, Probe
from ..seeding import derive
from .normalize import ImageClassifier
from .part_heads import PartFeatures
from .places import Places, places_of
from .shown import Attending, Outputs, Seen, Shown, attending_modules, expose, watched

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}

_log = logging.getLogger(__name__)


class InferenceView:
    """A view of a model as it is in eval mode. Satisfies ``protocols.View``.

    The model's mode, gradients and hooks are left alone, and no storage is shared with it. Gradients reach the
    images only.

    Args:
        model: an ``ImageClassifier``; of any other module the view gives logits, but features of a ``layer`` only.
        precision: "float32", or "bf16" for everything before the head.
        compile: run the trunk through ``torch.compile``.
        layer: the module, by its name in the network, whose output probes show as ``features``. By default what
            enters the head.
        attention: probes show the attention of every block, of timm's networks. Their passes are never compiled.

    Attributes:
        folded: whether the trunk could be traced, and so its batch norms folded.
        reason: why not.
        attends: whether the network has attention that could be shown.

    Raises:
        UserError: no such layer, or no attention. A layer without maps is refused by the first probe.
    """

    def __init__(
        self,
        model: ImageClassifier | nn.Module,
        *,
        precision: str = "float32",
        compile: bool = False,
        layer: str | None = None,
        attention: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self._model = model
        self._copy = _bare_copy(model).eval().requires_grad_(False)
        self._classifier = self._copy if isinstance(self._copy, ImageClassifier) else None
        self._dtype = PRECISIONS[precision]
        self._head: _Head | None = None  # decided at the first probe, which knows the shape of features

        body = self._copy if self._classifier is None else self._classifier.backbone
        assert isinstance(body, nn.Module)
        order, prefix = getattr(body, "output_fmt", "NCHW"), getattr(body, "num_prefix_tokens", 0)
        self._order, self._prefix = str(order), int(prefix)
        attending = attending_modules(body)
        self.attends = bool(attending) and self._classifier is not None and not isinstance(model, PartModel)
        if attention and not self.attends:
            raise UserError(
                f"{type(body).__name__} has no attention to draw a map from: use grad-cam, xgrad-cam or layer-cam."
            )
        for module in attending if attention else ():  # whatever timm was told: only that kernel is seen
            module.fused_attn = True  # type: ignore[assignment]  # a module's attributes are typed as tensors
        shown = Shown(layer, self._order, self._prefix, headed=self._classifier is not None)
        self._attention, self._inner = attention, layer is not None

        trunk: Callable[[Tensor], Seen]
        self._folds: list[_Fold] = []
        self.reason: str | None = None
        try:
            graph, outputs = _trace(self._copy)
        except Exception as error:  # tracing runs the model's own code on stand-ins: anything may happen
            self.reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            _log.warning(
                "%s is used unfolded, since it cannot be traced: %s", type(model).__name__, self.reason
            )
            forward = self._classifier.backbone.forward_features if self._classifier else self._copy
            trunk = watched(body, forward, shown)
            _set_layout(self._copy, self._copy, torch.float32)
        else:
            self._inner = expose(graph, outputs, body, shown)
            trunk = graph
            self._folds = _fold(graph, self._copy)
            _set_layout(self._copy, graph, self._dtype)
        self.folded = self.reason is None
        # An untraced trunk keeps its float32 weights: what to cast where is for autocast to find out.
        self._autocast = not self.folded and self._dtype != torch.float32
        self._layout = devices.memory_format(self._copy)
        self._eager, self._trunk = trunk, torch.compile(trunk) if compile else trunk
        self.refresh()

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits in float32."""
        return self._logits(self._run(images, self._trunk)[0])

    def probe(self, images: Float[Tensor, "b c h w"]) -> Probe:
        """One forward pass from a fresh leaf, its graph kept.

        ``features`` is None where the head sees no maps, or reads nothing but a class token; of a part model it is
        what its head reads: the part logits, or maps that they are made from. ``weights`` is given where the head is
        global average pooling and a linear layer, which is verified on numbers, not on names.
        """
        images = images.detach().clone().requires_grad_()
        size = (images.shape[2], images.shape[3])
        seen = Attending()
        with torch.enable_grad():
            with seen if self._attention else nullcontext():
                output, inner = self._run(images, self._eager if self._attention else self._trunk)
            if isinstance(output, PartFeatures):
                maps = inner if self._inner else output.maps
                return Probe(images, self._logits(output), maps, part_logits=output.part_logits)
            if self._classifier is None:
                return Probe(images, output, inner)
            places = places_of(output.shape, size, self._order, self._prefix)
            if places is None:
                features = None
                logits = self._logits(output)
            else:  # by way of the maps, so that a gradient reaches them
                features = places.to_maps(output)
                logits = self._logits(places.from_maps(features, output))
        if self._head is None and places is not None:
            self._head = self._look_at_head(output, places)
        attention = self._attended(tuple(seen.calls), output, places) if self._attention else None
        if self._inner:
            return Probe(images, logits, inner, attention=attention)
        if features is None or self._head is None or not self._head.sees_maps:
            return Probe(images, logits, attention=attention)
        weights = self._final_layer().weight.clone() if self._head.gap_linear else None
        return Probe(images, logits, features, weights, attention)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's current weights and running statistics, in place."""
        source = _state(self._model)
        if self._folds:
            _refold(self._folds, source)
        folded = {name for fold in self._folds for name in fold.names}
        pairs = [(target, source[name]) for name, target in _state(self._copy).items() if name not in folded]
        _copy_into([target for target, _ in pairs], [value for _, value in pairs])

    def _run(self, images: Tensor, trunk: Callable[[Tensor], Seen]) -> Seen:
        """What enters the head (the logits, of a model without one) in float32, and what the view has to show."""
        inputs = images if self._classifier is None else self._classifier.normalise(images)
        inputs = inputs.to(torch.float32 if self._autocast else self._dtype)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._autocast):
            output, inner = trunk(inputs.contiguous(memory_format=self._layout))
        return output.float(), inner

    def _logits(self, output: Tensor | PartFeatures) -> Tensor:
        if self._classifier is None:
            assert isinstance(output, Tensor)
            return output
        with torch.autocast(output.device.type, enabled=False):
            return self._classifier.answer(output)

    def _final_layer(self) -> nn.Linear:
        assert self._classifier is not None
        layer = self._classifier.get_classifier()
        assert isinstance(layer, nn.Linear)
        return layer

    def _attended(self, blocks: tuple[Attended, ...], output: Tensor, places: Places | None) -> Attention:
        batch, tokens = output.shape[:2]
        whole = {(x.shape[0], x.ndim, x.shape[-2]) for b in blocks for x in (b.query, b.key)}
        once = len({id(b.value) for b in blocks}) == len(blocks)  # not so in differential attention
        every = places is not None and places.order == "NLC" and whole == {(batch, 4, tokens)}
        if self._head is None or places is None or not (every and once):
            assert self._classifier is not None
            raise UserError(
                f"{type(self._classifier.backbone).__name__} does not attend from every token to every other, once a "
                "block (Swin attends within windows), so no attention map of it can be drawn: use grad-cam, xgrad-cam "
                "or layer-cam."
            )
        return Attention(blocks, self._head.reads, places.grid)

    def _look_at_head(self, output: Tensor, places: Places) -> "_Head":
        """What the head does, found out on random numbers; also of its last layer, which may be zero at first."""
        assert self._classifier is not None
        layer, head = self._classifier.get_classifier(), self._classifier.answer
        generator = torch.Generator().manual_seed(derive(0, "head"))

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(output.device)

        inputs = random(4, *output.shape[1:])
        pooled = places.to_maps(inputs).mean(dim=(2, 3))
        linear = layer if isinstance(layer, nn.Linear) else None
        kept = None if linear is None else linear.weight.data
        try:
            if linear is not None:  # the tensor stays: the probe's graph holds it
                linear.weight.data = random(*linear.weight.shape) * linear.in_features**-0.5
            with torch.enable_grad():
                leaf = inputs.requires_grad_()
                given = head(leaf)
                (gradient,) = torch.autograd.grad(given.square().sum(), leaf)
            gap_linear = linear is not None and linear.in_features == pooled.shape[1]
            gap_linear = gap_linear and torch.allclose(layer(pooled), given, rtol=1e-4, atol=1e-4)
        finally:
            if linear is not None and kept is not None:
                linear.weight.data = kept
        if places.order != "NLC":
            return _Head(gap_linear, True, torch.ones(0))
        reads = gradient.ne(0).any(dim=2).any(dim=0)
        sees_maps = bool(reads[places.prefix :].any())
        if sees_maps:  # a maximum has few gradients
            reads[places.prefix :] = True
        return _Head(gap_linear, sees_maps, reads.float() / reads.sum())


@dataclass(frozen=True)
class _Head:
    """What a head makes of the trunk's output.

    Attributes:
        gap_linear: global average pooling and a linear layer, nothing else.
        sees_maps: it reads more than the tokens before the grid's.
        reads: (N,) share of each token among those that it reads; of tokens only.
    """

    gap_linear: bool
    sees_maps: bool
    reads: Tensor


def _bare_copy(model: nn.Module) -> nn.Module:
    """A copy without hooks: they belong to the model's owner, who wants to see the model's passes only."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name.startswith(("_forward", "_backward")) and isinstance(value, dict):
                memo[id(value)] = OrderedDict()
    return deepcopy(model, memo)


def _state(model: nn.Module) -> dict[str, Tensor]:
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


def _trace(copy: nn.Module) -> tuple[fx.GraphModule, Outputs]:
    """The trunk as a graph whose modules are those of ``copy``, and what each of them returned in it."""
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
class _Fold:
    """A convolution of the view, and the names in the model of the two layers that it stands for."""

    target: nn.Conv2d
    conv: str
    norm: str
    eps: float

    @property
    def names(self) -> set[str]:
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{self.conv}.weight", f"{self.conv}.bias", *(f"{self.norm}.{name}" for name in norm)}


def _fold(graph: fx.GraphModule, copy: nn.Module) -> list[_Fold]:
    """Take every batch norm that can go out of the graph; the convolution before it gets a bias for it."""
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
        folds.append(_Fold(conv, names[conv], names[norm], norm.eps))
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


def _refold(folds: list[_Fold], source: dict[str, Tensor]) -> None:
    """norm(conv(x)) = scale conv(x) + bias - scale mean, with scale = weight / sqrt(var + eps)."""

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
    _copy_into([weight for weight, _ in targets], kernels)
    _copy_into([bias for _, bias in targets if bias is not None], biases)


def _copy_into(targets: list[Tensor], values: list[Tensor] | tuple[Tensor, ...]) -> None:
    if targets:
        torch._foreach_copy_(targets, values)


def _set_layout(copy: nn.Module, trunk: nn.Module, dtype: torch.dtype) -> None:
    """Channels last, ``dtype`` in the trunk except in its batch norms, which take mixed input.

    Changes each tensor's data and not the tensor, because the trunk's graph and the copy hold the same ones.
    """
    exact = {
        id(tensor)
        for module in trunk.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for tensor in _state(module).values()
    }
    for tensor in _state(trunk).values():
        if tensor.is_floating_point() and id(tensor) not in exact:
            tensor.data = tensor.data.to(dtype)
    layout = devices.memory_format(copy)
    for tensor in _state(copy).values():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
