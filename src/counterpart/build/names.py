"""The names of a run: the hash of its configuration, and its method in words."""

from ..catalogue import METHODS
from ..config import Config, identity, plain
from ..records import fingerprint


def hash_config(config: Config) -> str:
    """The hash, in twelve hex digits, of all settings that make a run what it is."""
    return fingerprint(identity(plain(config)))


def name_method(config: Config) -> str:
    """The method as tables name it, such as "PART, soft mask, AWP".

    It is part of a ledger's identity, so it never changes.
    """
    masked = _mask_in_words(config) if config.train.masked else ""
    return METHODS[config.train.method].title + masked + _options_in_words(config)


def _mask_in_words(config: Config) -> str:
    """The words for how a PART run differs from the paper's mask, such as ", soft mask, shuffled control"."""
    mask = config.mask
    words = [f"{mask.rule} mask"] if mask.rule != "paper" else []
    words += [f"{mask.map} map"] if mask.map != "grad-cam" else []
    words += [f"layer {mask.layer}"] if mask.layer is not None else []
    words += [f"{mask.control} control"] if mask.control != "none" else []
    words += ["multiplied"] if mask.projection == "multiply" else []
    words += ["eps_low auto"] if mask.eps_low == "auto" else []
    return "".join(f", {word}" for word in words)


def _options_in_words(config: Config) -> str:
    """The words for other settings that a user picks models by, such as ", minimum margin, AWP"."""
    train = config.train
    words = _generation_in_words(config)
    words += [f"eps warm-up {config.attack.eps_warmup:g}"] if config.attack.eps_warmup else []
    words += [f"label smoothing {train.label_smoothing:g}"] if train.label_smoothing else []
    words += ["AWP"] if train.awp else []
    words += ["EMA"] if train.ema is not None else []
    return "".join(f", {word}" for word in words)


def _generation_in_words(config: Config) -> list[str]:
    """How training makes its adversarial examples, where that is not PGD."""
    attack = config.attack
    if attack.generation == "minimum-margin":
        return ["minimum margin"]
    if attack.generation != "n-fgsm":
        return []
    names: dict[float, str] = {0: "FGSM", 2: "N-FGSM"}
    return [names.get(attack.noise, f"N-FGSM noise {attack.noise:g}")]
