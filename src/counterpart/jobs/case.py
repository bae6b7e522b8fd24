"""What an evaluation judges, and how: a target with everything that decides the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import build, devices
from ..attacks.auto_attack import finish
from ..batch import Batch
from ..budget import Budget
from ..build.attacks import Victim
from ..config import EvaluateSettings
from ..config.corruptions import CorruptionsSettings
from ..contracts import Classifier, NamedAttack
from ..data.image_sets import SPLIT_SEED, ImageSet, balanced_subset, content_fingerprint
from ..data.labels import parts_that_stay
from ..data.mask_files import masks_fingerprint
from ..data.transforms import as_floats
from ..errors import UserError
from ..evaluation import accuracy
from ..evaluation.accuracy import Procedure
from ..evaluation.drawn import DrawPlan
from ..evaluation.ledger import Ledger
from ..evaluation.memory_ledger import MemoryLedger
from ..evaluation.radii import budgets_from, budgets_of_planes
from ..evaluation.sampling import SamplePlan, cheap_first
from ..evaluation.weights import weights_hash
from ..models.fixed_noise import FixedNoise
from ..models.forms import Form
from ..models.inference import InferenceView
from ..records import fingerprint
from ..renamed_settings import in_first_words
from ..seeding import Keys, derive
from .samples import plan_sample
from .sizes import Sizes, settle_sizes
from .target import Target
from .targets import surrogate
from .views import settle_form, with_form

RADII = "radii.safetensors"


@dataclass(frozen=True)
class Case:
    """A target, together with all that decides the result of its evaluation.

    Attributes:
        target: the model and its folder.
        images: the images that are evaluated.
        norm: the norm of the budget: "linf", "l2" or "l1".
        eps: the radius of the budget, or the largest where there are several.
        radii: all radii, rising.
        budget: the budget that norm and eps make.
        attacks: the attacks, in the order in which they run.
        view: the view of the model that the attacks search on.
        identity: everything that decides the ledger's rows.
        sizes: how many images are met at once, and how many are saved at once.
        why: the reason why the view is not of the fast form, or None where it is.
        sample: how dear attacks are tried on a sample of the survivors; None where they meet all of these.
    """

    target: Target
    images: ImageSet
    norm: str
    eps: float
    radii: Sequence[float]
    budget: Budget
    attacks: Sequence[NamedAttack]
    view: InferenceView
    identity: Mapping[str, Any]
    sizes: Sizes
    why: str | None = None
    sample: SamplePlan | None = None

    @property
    def key(self) -> str:
        """The name of the evaluation."""
        return fingerprint(self.identity)

    @cached_property
    def map_view(self) -> InferenceView:
        """The view that maps are drawn from. It is another one where maps need more than attacks do."""
        options = build.choose_view_options(self.target.config)
        if not any(options.values()):
            return self.view
        precision = self.target.config.evaluate.precision
        return InferenceView(self.target.model, precision=precision, form=self.view.form, **options)

    @property
    def procedure(self) -> Procedure:
        """The procedure by which the case is evaluated."""
        wanted = self.target.config.evaluate
        return Procedure(
            chunk_size=self.sizes.chunk_size,
            batch_size=self.sizes.batch_size,
            device=self.target.device,
            seed=self.target.config.seed,
            individual=wanted.individual,
            save_images=wanted.save_images,
            draws=wanted.draws,
            votes=wanted.votes,
            sample=self.sample,
        )

    @property
    def draws(self) -> int | None:
        """The number of draws that an image is judged by; None where one answer decides, as for most models."""
        wanted = self.target.config.evaluate
        return wanted.draws if wanted.by_draws else None

    @cached_property
    def model(self) -> nn.Module:
        """The model that is judged: the target's, or that with its noise fixed."""
        return judged_model(self.target)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of the rows, in the run's folder, or in memory where nothing shall be written."""
        chunks = accuracy.chunks_of(self.images, self.sizes.chunk_size)
        if not self.target.has_folder:
            return MemoryLedger(chunks=chunks)
        return Ledger(self.target.run.path / "evaluations" / self.key, chunks)


NOISE_IS_FIXED = "Attacks search on the model itself, whose noise is fixed."


def judged_model(target: Target) -> nn.Module:
    """The model of a target as it is judged: itself, or with its noise fixed."""
    config, model = target.config, target.model
    return FixedNoise(model, derive(config.seed, "fixed noise")) if config.evaluate.fixed_noise else model


def case_of(target: Target, kind: str = "evaluations") -> Case:
    """The case of a target: what to evaluate, and how.

    ``kind`` names the folder of the run that keeps the form of the view.
    """
    target = on_corrupted(target)
    config, images = target.config, target.images
    wanted = config.evaluate
    if wanted.n is not None:
        images = balanced_subset(images, wanted.n, seed=0)  # every run is judged on the same images
    norm = _single_norm(wanted, config.attack.norm)
    radii = wanted.radii or (config.attack.eps,)
    eps, several = radii[-1], len(radii) > 1
    drawn = {**config.mask.model_dump(exclude={"files", "projection"}), "eps_low": wanted.eps_low}
    mask = in_first_words({"mask": drawn})["part"]
    if (users_masks := masks_fingerprint(images)) is not None:
        mask["masks"] = users_masks
    elsewhere = {"data": config.data.model_dump(exclude_unset=True)}
    surrogates = {}

    def load(text: str) -> Classifier:
        model = surrogate(text, target.device, elsewhere)
        surrogates[text] = weights_hash(model)
        return model

    attacks = build.build_attacks(wanted, Victim(norm, target.classes, target.model, images, load))
    _refuse_missing_arithmetic(wanted.precision, target.device)
    in_float32 = wanted.precision != "float32" and bool(attacks)
    names = [*attacks, *(finish(target.model, norm, target.classes) if in_float32 else ())]
    sample = plan_sample(wanted, names, config.seed)
    names = cheap_first(names, sample)
    identity = {
        "model": weights_hash(target.model),
        "who": dict(target.who),
        "attacks": [[named.name, named.line] for named in names],
        "surrogates": surrogates,
        "options": [spec.model_dump(exclude_none=True) for spec in wanted.attacks],
        "norm": norm,
        "eps": list(radii) if several else eps,
        **({"nearest": [named.name for named in names if named.nearest]} if several else {}),
        **({} if wanted.eps_low is None else {"mask": mask}),
        **({} if not (code := build.hash_users_code(config)) else {"code": code}),
        "data": [images.name, images.split, images.fingerprint],
        "shape": images.shape,
        "labels": config.data.labels,
        **({} if (staying := parts_that_stay(images)) is None else {"parts": staying}),
        "images": fingerprint(images.index.tolist()),
        "n": len(images),
        **({} if wanted.protocol is None else {"protocol": wanted.protocol}),
        "seed": config.seed,
        **of_random_answers(wanted),
        **({} if sample is None else {"sampled": sample.to_identity()}),
        "individual": wanted.individual,
        "engine": wanted.engine,
        "precision": wanted.precision,
        "threads": torch.get_num_threads(),
        "device": target.device.type,
        **({} if target.about is None else {"object": target.about}),
    }
    folder = target.run.path / kind if target.has_folder else None
    sizes = settle_sizes(folder, identity, wanted, target.model, images, target.device)
    identity.update(sizes._asdict())
    judged = judged_model(target)
    form: Form = "original"
    why: str | None = NOISE_IS_FIXED
    if not wanted.fixed_noise:
        form, why = settle_form(folder, identity, target.model, images, target.device)
    if in_float32:
        attacks += finish(InferenceView(target.model, form=form), norm, target.classes)
    attacks = cheap_first(attacks, sample)
    view = InferenceView(judged, precision=wanted.precision, form=form)
    budget = build.build_budget(norm, eps)
    return Case(
        target, images, norm, eps, radii, budget, attacks, view, with_form(identity, form), sizes, why, sample
    )


def _refuse_missing_arithmetic(precision: str, device: torch.device) -> None:
    """Refuse TF32 where nothing computes in it: it would be float32 under another name.

    Raises:
        UserError: the device has no TF32.
    """
    if precision == "tf32" and not devices.has_tf32(device):
        raise UserError(
            f"evaluate.precision tf32 needs a CUDA GPU from Ampere on, and this is {device.type}: take float32 or bf16."
        )


def _single_norm(wanted: EvaluateSettings, of_training: str) -> str:
    """The norm of an evaluation.

    Raises:
        UserError: several are named, or another than training's without a radius.
    """
    if len(wanted.norms) > 1:
        raise UserError(
            f"evaluate.norm {','.join(wanted.norms)}: name one norm. A union is for counterpart evaluate."
        )
    [norm] = wanted.norms or (of_training,)
    if norm != of_training and wanted.eps is None:
        raise UserError(
            f"evaluate.norm {norm} differs from training's {of_training}: give its radius with --evaluate.eps."
        )
    return norm


def details_of(case: Case) -> dict[str, Any]:
    """What every record of a case says of its model, images and budget."""
    target = case.target
    return {
        "model": target.config.model.name,
        "data": target.data,
        "split": case.images.split,
        **({} if (fold := target.config.data.fold) is None else {"fold": fold}),
        "shape": list(case.images.shape),
        "fingerprint": case.images.fingerprint,
        "norm": case.norm,
        "eps": case.eps,
    }


def of_random_answers(wanted: EvaluateSettings) -> dict[str, Any]:
    """What an identity says of the settings for models with random answers: those that are not at their defaults."""
    settings = {
        name: getattr(wanted, name) for name in ("draws", "votes", "eot") if getattr(wanted, name) > 1
    }
    return settings | ({"fixed_noise": True} if wanted.fixed_noise else {})


def refuse_random_answers(wanted: EvaluateSettings, job: str) -> None:
    """Refuse the settings for models with random answers.

    Raises:
        UserError: one of them is given, to a job that looks at single answers.
    """
    if settings := of_random_answers(wanted):
        raise UserError(
            f"{job} looks at single answers: evaluate.{next(iter(settings))} is for counterpart evaluate."
        )


def draw_plan_of(identity: Mapping[str, Any]) -> DrawPlan | None:
    """The draws that an evaluation judges each image by; None where one answer decides."""
    if "draws" not in identity and "votes" not in identity:
        return None
    return DrawPlan(identity.get("draws", 1), identity.get("votes", 1), identity["seed"])


def on_corrupted(target: Target) -> Target:
    """The target on corrupted images, where its settings ask for them, and else the target itself."""
    on, settings = target.config.evaluate.on, target.config.corruptions
    return target if on is None else replace(target, images=_corrupted(target.images, on, settings))


def _corrupted(images: ImageSet, on: str, settings: CorruptionsSettings) -> ImageSet:
    """The images under a corruption, NAME:SEVERITY, drawn by a fixed seed: all models meet the same images.

    Raises:
        UserError: the corruption is not made for such images, or textures are missing.
    """
    from ..data.corruptions import constants_for, corrupt, read_textures  # imports scipy, which few need

    name, severity = on.split(":")
    textures = read_textures(settings.frost) if name == "frost" and settings.frost is not None else None
    constants = settings.constants or constants_for(images.shape[1], images.shape[2])

    def alter(pixels: Tensor, index: Tensor) -> Tensor:
        before = as_floats(pixels if images.alter is None else images.alter(pixels, index))
        keys = Keys(SPLIT_SEED, "corruption", index.to(before.device))
        return corrupt(before, name, int(severity), keys, constants=constants, frost=textures)

    marks = [images.fingerprint, on, constants, content_fingerprint(textures) if textures else ""]
    corrupted_images = replace(
        images, name=f"{images.name} with {name} {severity}", fingerprint=fingerprint(marks), alter=alter
    )
    try:
        corrupted_images.read(torch.arange(1))
    except ValueError as error:
        raise UserError(f"evaluate.on {on}: {error}") from None
    return corrupted_images


def budgets_of(ledger: Ledger, identity: Mapping[str, Any]) -> accuracy.Budgets:
    """The budgets of an evaluation's attacks.

    They come from the planes of radii in its ledger, from one radius for all images, or from each of several
    radii.
    """
    if "mask" in identity and isinstance(ledger, MemoryLedger):
        return budgets_of_planes(*ledger.radii)
    if "mask" in identity:
        return budgets_from(ledger.folder / RADII)
    norm, eps = identity["norm"], identity["eps"]
    if isinstance(eps, list):
        return {radius: partial(_same_for_all, build.build_budget(norm, radius)) for radius in eps}
    return partial(_same_for_all, build.build_budget(norm, eps))


def _same_for_all(budget: Budget, _: Batch) -> Budget:
    return budget
