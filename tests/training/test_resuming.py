"""Where a training goes on."""

import json

import pytest
import torch

from counterpart import distributed
from counterpart.checksums import save_tensors
from counterpart.errors import UserError
from counterpart.training import resuming


@pytest.mark.parametrize(
    "about", [{"stave": {"epoch": 1, "step": 0}}, {"state": {"epoch": 1}}, {"state": [1]}]
)
def test_a_header_whose_state_is_damaged_is_refused_before_hosts_compare(monkeypatch, tmp_path, about):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    last = tmp_path / "last.safetensors"
    save_tensors({"weight": torch.zeros(1)}, last, {"counterpart": json.dumps(about)})
    with pytest.raises(UserError, match=r"last\.safetensors is damaged: .* how far the training came"):
        resuming._refuse_a_later_start(last)
