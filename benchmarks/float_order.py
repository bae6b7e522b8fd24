"""What the order of float additions changes: one evaluation at other batch sizes and thread counts.

    python benchmarks/float_order.py TARGET --data.root DIR --images 200

A sample meets the same random draws whatever else is in its batch; what is left is that kernels add floats up in
another order. TARGET is what counterpart evaluate takes. Records say how far logits move, and how many images end
otherwise under APGD-CE, FAB and Square, all beside the first setting.
"""

import argparse

import torch
from autoattack import EPS, scaled
from timing import keep, ratio
from torch import Tensor

from counterpart import devices
from counterpart.attacks.auto_attack import suite
from counterpart.budget import Linf
from counterpart.data.image_sets import balanced_subset
from counterpart.evaluation.answers import judge, logits_of
from counterpart.evaluation.batches import read_batch
from counterpart.jobs.targets import open_targets
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys

ATTACKS = ("apgd-ce", "fab-t target 1", "square")


def main() -> None:
    """Attack at every setting, and compare with the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target")
    parser.add_argument("--data.root", dest="root", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--sizes", default="200,64,7")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--scale", type=float, default=0.1, help="share of AutoAttack's steps and queries")
    given = parser.parse_args()

    target = next(open_targets(given.target, {"data": {"root": given.root}, "device": "cpu"}))
    images = balanced_subset(target.images, given.images, seed=0)
    batch = read_batch(images, torch.arange(len(images)), target.device)
    view, budget = InferenceView(target.model), Linf(EPS)
    attacks = [scaled(one, given.scale) for one in suite("standard", "linf", 10) if one.name in ATTACKS]
    found: dict[tuple[int, int], dict[str, Tensor]] = {}
    with devices.exact_float32():
        for threads in map(int, given.threads.split(",")):
            torch.set_num_threads(threads)
            for size in map(int, given.sizes.split(",")):
                parts = [batch.select(slice(i, i + size)) for i in range(0, len(batch), size)]
                seen = {"logits": torch.cat([logits_of(target.model, part.images) for part in parts])}
                for one in attacks:
                    fooled = [
                        judge(
                            target.model,
                            one.attack(
                                view, part.images, part.labels, budget=budget, keys=Keys(0, one.name, part.index)
                            ).images,
                            part.images, part.labels, budget,
                        )[0]
                        for part in parts
                    ]  # fmt: skip
                    seen[one.line] = torch.cat(fooled)
                found[threads, size] = seen
    first, *others = found
    rows = []
    for setting in others:
        here, there = found[setting], found[first]
        differ = {one.line: int((here[one.line] != there[one.line]).sum()) for one in attacks}
        rows.append(
            ratio(
                f"float order/{setting[0]} threads, batches of {setting[1]}, beside {first[0]} and {first[1]}",
                float((here["logits"] - there["logits"]).abs().max()), len(batch), "",
                unit="largest difference of a logit", images_that_end_otherwise=differ,
                fooled={one.line: int(there[one.line].sum()) for one in attacks},
                model=target.config.model.name, eps=EPS, scale=given.scale,
            )
        )  # fmt: skip
    keep("float_order.jsonl", rows)
    for row in rows:
        print(row.details["images_that_end_otherwise"])


if __name__ == "__main__":
    main()
