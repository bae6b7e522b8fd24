"""PART under the maps of other layers and of transformers, from training to a mask-aware evaluation."""

import pytest
from safetensors.torch import load_file

from counterpart import jobs
from counterpart.config import resolve
from counterpart.errors import UserError

VIT = {"name": "timm/test_vit", "patch_size": 8}
CNN = {"name": "wrn-10-1", "width": 4}


def settings(runs, **changes):
    given = {
        "name": "maps",
        "runs": str(runs),
        "device": "cpu",
        "data": {"flip": False, "padding": 0, "limit": 20},
        "attack": {"eps": 0.05, "steps": 1},
        "mask": {"eps_low": 0.03, "burn_in": 0},
        "train": {
            "method": "part",
            "epochs": 1,
            "batch_size": 10,
            "precision": "float32",
            "validation_steps": 1,
            "validation_n": 10,
        },
    }
    return resolve(given, changes)


@pytest.mark.parametrize(
    ("model", "part", "method", "shape"),
    [
        (CNN, {"layer": "block2", "map": "layer-cam"}, "part-t", (8, 8)),
        (VIT, {"map": "attention-gradient"}, "part", (2, 2)),
    ],
)
def test_a_network_is_trained_and_attacked_under_its_map(tmp_path, model, part, method, shape):
    config = settings(tmp_path, model=model, mask=part, train={"method": method})
    run = jobs.train(config).run
    [epoch] = [r for r in run.records() if r.kind == "epoch"]
    assert epoch.details["flat_maps"] < 10
    assert 0.03 < epoch.details["mean_radius"] < 0.05
    evaluation = {"n": 5, "eps_low": 0.03, "attacks": [{"steps": 1}]}
    [judged] = jobs.evaluate(str(run.path), {"evaluate": evaluation})
    folder = run.path / "evaluations" / judged.records[0].details["evaluation"]
    radii = load_file(folder / "radii.safetensors")["radii"]
    assert radii.unique().tolist() == pytest.approx([0.03, 0.05])
    assert load_file(folder / "panel.safetensors")["importance"].shape[1:] == shape
    name = judged.records[0].details["method"]
    assert name.startswith(f"{method.upper()}, ")
    assert part.get("layer", part.get("map")) in name
    assert jobs.verify_run(run.path, {})


def test_networks_that_do_not_have_the_map_are_refused_before_anything_is_written(tmp_path):
    refused = [
        (VIT, {}, r"timm/test_vit shows no feature map before its head.*--mask.map attention-rollout or"),
        (CNN, {"map": "attention-gradient"}, "WideResNet has no attention to draw a map from: use grad-cam"),
        (CNN, {"layer": "blok2"}, "WideResNet has no layer 'blok2'. It has: block2, "),
        (CNN, {"layer": "fc"}, "layer 'fc' of WideResNet does not run before the head"),
        ({"name": "wrn-10-1", "patch_size": 4}, {}, "patch_size 4 does not apply to wrn-10-1"),
        ({"name": "timm/resnet10t", "patch_size": 4}, {}, "patch_size 4 does not apply to timm/resnet10t"),
        ({**VIT, "patch_size": 17}, {}, "patch_size 17 exceeds the images' side of 16 pixels"),
    ]
    for model, part, message in refused:
        with pytest.raises(UserError, match=message):
            jobs.train(settings(tmp_path, model=model, mask=part))
    assert not list(tmp_path.iterdir())
