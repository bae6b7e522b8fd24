"""The shapes of the exchangeable parts: what a model, a view, an attack, a rule and an objective must offer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from .batch import Batch
from .budget import Budget
from .seeding import Keys


@runtime_checkable
class Classifier(Protocol):
    """A function from images (B, C, H, W) in [0, 1] to logits (B, K).

    It normalises the images itself, and it returns logits, never probabilities.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """The class logits (B, K)."""
        ...


@dataclass(frozen=True)
class PartOutput:
    """What a part model answers.

    Attributes:
        logits: (B, K) the logits of the classes.
        part_logits: (B, P + 1, h, w) the logits of the parts at the segmenter's own resolution; channel 0 is
            the background.
        coarser: the same logits (B, P + 1, u, v) at coarser resolutions, from models that predict the parts at
            several. Losses of parts are averaged over all resolutions; everything else reads ``part_logits``.
    """

    logits: Float[Tensor, "b k"]
    part_logits: Float[Tensor, "b p h w"]
    coarser: tuple[Float[Tensor, "b p _ _"], ...] = ()

    @property
    def resolutions(self) -> "tuple[PartOutput, ...]":
        """The answer at each resolution, the finest first."""
        return tuple(PartOutput(self.logits, maps) for maps in (self.part_logits, *self.coarser))

    def last(self, count: int) -> "PartOutput":
        """The answer to the last ``count`` images."""
        coarser = tuple(maps[-count:] for maps in self.coarser)
        return PartOutput(self.logits[-count:], self.part_logits[-count:], coarser)


@runtime_checkable
class PartModel(Classifier, Protocol):
    """A ``Classifier`` that also says which part each pixel belongs to.

    Attributes:
        part_classes: (P,) the class of each part; part ids are 1 .. P.
        full_resolution: whether features and losses of parts are computed at the images' resolution and not at the
            segmenter's own.
    """

    part_classes: Tensor
    full_resolution: bool

    def forward_parts(self, images: Tensor) -> PartOutput:
        """The class logits and the part logits, from one pass."""
        ...

    def classify_parts(self, part_logits: Tensor) -> Tensor:
        """The class logits (B, K) that follow from part logits alone. Heads that look at more refuse it."""
        ...


@dataclass(frozen=True)
class Attended:
    """The inputs and the output of one block's call of scaled dot-product attention.

    The call is a fused kernel that keeps the attention weights nowhere, so they are computed again from the
    inputs.

    Attributes:
        query: (B, heads, N, d) the query of each token.
        key: (B, heads, N, d) the key of each token.
        value: (B, heads, N, e) the value of each token.
        mixed: (B, heads, N, e) the output, which is the weights times ``value``; it is part of the graph.
        options: the options of the call, such as its mask and its scale.
    """

    query: Float[Tensor, "b heads n d"]
    key: Float[Tensor, "b heads n d"]
    value: Float[Tensor, "b heads n e"]
    mixed: Float[Tensor, "b heads n e"]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attention:
    """Where the tokens of a transformer look.

    Attributes:
        blocks: the attention of each block, from the first to the last.
        reads: (N,) the share of each token in what the head reads, which is one class token or an average of
            tokens.
        grid: (u, v) the rows and columns in which the last u v tokens lie; the tokens before them have no
            place.
    """

    blocks: tuple[Attended, ...]
    reads: Float[Tensor, " n"]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Probe:
    """One forward pass of a view with its graph, so that whoever comes next need not make it again.

    Attributes:
        images: (B, C, H, W) the images, a leaf of the graph that requires grad.
        logits: (B, K) the class logits in float32; their graph leads to ``images``.
        features: (B, A, u, v) what enters the head, or the output of the layer that the view shows; part of
            the graph.
        weights: (K, A) the weights of the final linear layer, where the head is global average pooling and
            that layer, because maps then have a closed form; None elsewhere.
        attention: the attention of a transformer, where the view shows it; part of the graph.
        part_logits: (B, P + 1, h, w) the part logits of a part model; their graph leads to ``images``.
    """

    images: Float[Tensor, "b c h w"]
    logits: Float[Tensor, "b k"]
    features: Float[Tensor, "b a u v"] | None = None
    weights: Float[Tensor, "k a"] | None = None
    attention: Attention | None = None
    part_logits: Float[Tensor, "b p y x"] | None = None


@runtime_checkable
class View(Protocol):
    """A frozen, fast copy of a model for attacks."""

    def __call__(self, images: Tensor) -> Tensor:
        """The class logits (B, K) in float32."""
        ...

    def probe(self, images: Tensor) -> Probe:
        """One forward pass with its graph."""
        ...


@dataclass(frozen=True)
class Attacked:
    """What an attack returns. It is no tensor: the images are ``.images``.

    Attributes:
        images: (B, C, H, W) the attacked images, within the budget.
        forwards: (B,) the number of forward passes that each image cost.
        backwards: (B,) the number of backward passes that each image cost.
        distances: (B,) the length of the smallest adversarial perturbation that the attack met, inside the
            budget or not. Only attacks that look for the nearest adversarial image have it. It is 0 where the
            clean image is misclassified, and inf where no adversarial image was met. It is the plain norm of
            the perturbation, in the budget's norm and in units of [0, 1] pixels: the largest change, the
            Euclidean length or the sum of changes. Where the radius of ``Linf`` differs from pixel to pixel,
            it is the share of the budget that is used, ``budget.distance``, times the image's largest radius.
            So in any case an image would fall to the budget scaled by t exactly where its distance is at most
            ``t * budget.size``.
        nearest: (B, C, H, W) the image at that distance, or the clean image where no adversarial one was met.
    """

    images: Float[Tensor, "b c h w"]
    forwards: Int[Tensor, " b"]
    backwards: Int[Tensor, " b"]
    distances: Float[Tensor, " b"] | None = None
    nearest: Float[Tensor, "b c h w"] | None = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"Attacked has no {name!r}: {_THREE_FIELDS}")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"Attacked cannot be unpacked: {_THREE_FIELDS}")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch where an ``Attacked`` is given to it in place of a tensor."""
        raise TypeError(f"Attacked is no tensor: {_THREE_FIELDS}")


_THREE_FIELDS = "its images are .images (B, C, H, W); .forwards and .backwards (B,) count the passes of each."


@runtime_checkable
class Attack(Protocol):
    """A pure function from images to attacked images.

    It never changes the model's mode, grad flags or hooks.

    The names that ``counterpart`` exports do more for a loop of one's own: they put the model into eval mode for the
    attack and its modes back (``attacks.front_door``).
    """

    def __call__(
        self,
        model: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        budget: Budget,
        keys: Keys,
        start: "Tensor | Probe | None" = None,
    ) -> Attacked:
        """The ``images``, perturbed within ``budget``, and what that cost."""
        ...


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its options bound.

    Attributes:
        name: the name, unique in a list of attacks; its random draws are named so as well.
        attack: the ``Attack`` that runs. Where ``parts`` is true, it takes ``parts`` (B, H, W) and
            ``annotated`` (B,) as well.
        line: the line of a table that it counts for. All targets and restarts of an attack share one line.
        parts: whether it wants the true parts of the images.
        by_gradient: whether it follows gradients of the attacked model.
        nearest: whether it looks for the nearest adversarial image at any distance. It then returns
            ``distances`` and ``nearest``, so that one run tells of every radius.
        key: the name of the attack in the catalogue, such as "fab" for all of its targets; "" for others.
    """

    name: str
    attack: Callable[..., Attacked]
    line: str
    parts: bool = False
    by_gradient: bool = True
    nearest: bool = False
    key: str = ""

    def on(self, model: Classifier, batch: Batch, *, budget: Budget, keys: Keys) -> Attacked:
        """The attacked images of a batch. The batch holds parts where the attack wants them."""
        known: dict[str, Any] = {"parts": batch.parts, "annotated": batch.has_parts} if self.parts else {}
        return self.attack(model, batch.images, batch.labels, budget=budget, keys=keys, **known)


Rule: TypeAlias = Callable[[Probe, Batch, Keys, Budget], Budget]
"""A function that narrows the full budget of a batch by one forward pass on it.

The keys are for rules that draw at random.
"""


@dataclass(frozen=True)
class Perturbed:
    """What an objective trains on, and how it came about.

    Attributes:
        images: (B, C, H, W) the perturbed images, or the clean ones for an objective without attack.
        budget: the budget that the attacker had; None for an objective without attack.
        counts: sums over the batch for the log, such as the number of flat maps; as tensors, so that nobody waits for
            the device.
    """

    images: Float[Tensor, "b c h w"]
    budget: Budget | None = None
    counts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """A training loss.

    Attributes:
        total: the *mean* over the batch, a scalar with its graph.
        terms: the summands of the loss, detached from the graph, for the log.
    """

    total: Float[Tensor, ""]
    terms: Mapping[str, Tensor]


@runtime_checkable
class Perturb(Protocol):
    """The attack of an objective. It runs on the inference view."""

    def __call__(self, view: View, batch: Batch, keys: Keys) -> Perturbed:
        """The images to train on, with the budget that they were perturbed within."""
        ...


@runtime_checkable
class LossFunction(Protocol):
    """The loss of an objective. It runs on the model in training mode."""

    def __call__(self, model: nn.Module, batch: Batch, perturbed: Perturbed) -> Loss:
        """The mean loss over the batch."""
        ...


@dataclass(frozen=True)
class Objective:
    """All that a training method is: an attack and a loss.

    It knows of no optimiser, no configuration and no device.
    """

    perturb: Perturb
    loss: LossFunction
