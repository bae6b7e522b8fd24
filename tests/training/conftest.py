import pytest

from counterpart.config import resolve


@pytest.fixture
def tiny(tmp_path):
    """A configuration that trains in a second or two."""

    def make(**changes):
        base = {
            "name": "tiny",
            "runs": str(tmp_path / "runs"),
            "device": "cpu",
            "data": {"limit": 96, "flip": False, "padding": 1},
            "model": {"name": "wrn-10-1", "width": 4},
            "attack": {"eps": 0.1, "steps": 2},
            "mask": {"eps_low": 0.05, "burn_in": 0.34},
            "train": {
                "method": "part",
                "epochs": 3,
                "batch_size": 32,
                "precision": "float32",
                "validation_steps": 2,
                "validation_n": 20,
            },
            "optimizer": {"lr": 0.1},
        }
        return resolve(base, changes)

    return make
