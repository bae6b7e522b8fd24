"""Twenty small models that are trained honestly: the audit must not alarm for any of them."""

from counterpart import jobs
from counterpart.config import resolve
from counterpart.recipes import load

SEEDS = (0, 1, 2, 3)
DIGITS = {
    "data": {"name": "digits", "size": 8, "flip": False, "padding": 0},
    "model": {"name": "wrn-10-1", "width": 8},
    "attack": {"eps": 0.1, "steps": 5},
    "optimizer": {"lr": 0.1},
    "train": {
        "epochs": 8,
        "batch_size": 64,
        "precision": "float32",
        "validation_steps": 2,
        "validation_n": 20,
    },
}
OBJECTS = {
    "data": {"name": "synthetic-parts", "size": 32, "limit": 400},
    "train": {"clean_epochs": 3, "epochs": 5, "validation_steps": 2, "validation_n": 20},
}
METHODS = {
    "AT": {"train": {"method": "at"}},
    "TRADES": {"train": {"method": "trades", "beta": 6}},
    "MART": {"train": {"method": "mart", "beta": 6}},
    "PART": {"train": {"method": "part"}, "mask": {"eps_low": 0.0875, "rule": "paper", "burn_in": 0.25}},
}
PARTS = {
    "baseline on objects": "synthetic-parts/baseline",
    "part model on objects": "synthetic-parts/downsampled",
}
MODELS = [(name, seed) for name in METHODS for seed in SEEDS] + [
    (name, seed) for name in PARTS for seed in SEEDS[:2]
]


def train(name, seed, runs):
    """The run of an honest model."""
    own = {"name": "honest", "runs": str(runs), "seed": seed, "device": "cpu", "threads": 1}
    if name in METHODS:
        return jobs.train(resolve(DIGITS, METHODS[name], own)).run
    recipe = PARTS[name]
    return jobs.train(resolve(load(recipe), OBJECTS, own, source=recipe)).run
