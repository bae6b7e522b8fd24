"""AutoAttack on a robust MNIST network with a published result: ours and the published package, seed by seed.

    python benchmarks/mnist_parity.py --data DIR --work DIR --seeds 0,1,2 --engines counterpart,official

DIR holds ``fast-adversarial-fgsm.pth`` (Wong et al. 2020, arXiv 2001.03994) and MNIST's ``t10k-images-idx3-ubyte.gz``
and ``t10k-labels-idx1-ubyte.gz``. Published at l-infinity 0.3: clean 98.50 %, AutoAttack 82.93 %. Ledgers go into
``--work``, so that a benchmark that was stopped goes on; each engine and seed becomes a record once it is complete,
and so does the share of survivors in which it differs from each earlier one. Engine bf16 is ours with
``--precision bf16``.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from timing import keep, ratio

from counterpart import devices
from counterpart.attacks import official
from counterpart.attacks.auto_attack import finish, suite
from counterpart.budget import Linf
from counterpart.contracts import Classifier, NamedAttack
from counterpart.data.image_sets import ImageSet, balanced_subset, content_fingerprint
from counterpart.evaluation import accuracy
from counterpart.evaluation.ledger import Ledger
from counterpart.evaluation.weights import weights_hash
from counterpart.models.inference import InferenceView
from counterpart.models.published import load_published
from counterpart.records import Record
from counterpart.statistics import wilson

EPS = 0.3
PUBLISHED = {"clean": 0.9850, "autoattack": 0.8293}


def main() -> None:
    """Evaluate with each engine and seed, and keep what is complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--engines", default="counterpart,official")
    parser.add_argument("--without", default="", help="lines to leave out of both, such as fab-t")
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--images", type=int, help="this many, balanced; default: all 10,000")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    given = parser.parse_args()

    device = devices.resolve(given.device, given.threads)
    model, _ = load_published("mnist-cnn", given.data / "fast-adversarial-fgsm.pth")
    model = model.to(device)
    images = mnist(given.data)
    if given.images is not None:
        images = balanced_subset(images, given.images, seed=0)
    without = [line for line in given.without.split(",") if line]
    robust: dict[str, set[int]] = {}
    for seed in map(int, given.seeds.split(",")):
        for engine in given.engines.split(","):
            attacks, view = search(engine, model)
            attacks = [one for one in attacks if one.line.removeprefix("official ") not in without]
            name = "-".join([engine, str(seed), str(len(images)), *without])
            ledger = Ledger(given.work / name, accuracy.chunks_of(images, given.batch_size))
            ledger.open(
                {
                    "model": weights_hash(model),
                    "attacks": [one.name for one in attacks],
                    "seed": seed,
                    "eps": EPS,
                    "n": len(images),
                }
            )
            procedure = accuracy.Procedure(
                given.batch_size, given.batch_size, device, seed, save_images=False
            )
            rows = accuracy.evaluate(
                model, view, images, attacks, budget_of=lambda _: Linf(EPS), ledger=ledger,
                procedure=procedure, title=name,
            )  # fmt: skip
            keep("mnist_parity.jsonl", records(engine, seed, rows, attacks, ledger, without, device))
            here = {row.index for row in rows if row.fooled_by == ""}
            for other, there in robust.items():
                differ = ratio(
                    f"mnist parity/share of survivors that differ, {engine} seed {seed} and {other}",
                    len(here ^ there) / max(len(here | there), 1), len(here | there), "",
                    only_first=len(here - there), only_second=len(there - here),
                )  # fmt: skip
                keep("mnist_parity.jsonl", [differ])
            robust[f"{engine} seed {seed}"] = here


def search(engine: str, model: torch.nn.Module) -> tuple[list[NamedAttack], Classifier]:
    """The attacks of an engine, and what they search on."""
    if engine == "official":  # on the model as its user has it
        return official.suite("standard", 10), model
    attacks = suite("standard", "linf", 10)
    if engine == "bf16":
        return attacks + finish(InferenceView(model), "linf", 10), InferenceView(model, precision="bf16")
    return attacks, InferenceView(model)


def records(engine, seed, rows, attacks, ledger, without, device) -> list[Record]:  # type: ignore[no-untyped-def]
    """Clean and robust accuracy, and what each line of attacks left."""
    made, n = [], len(rows)
    lines = dict.fromkeys(one.line for one in attacks)
    line_of = {one.name: one.line for one in attacks}
    first = [line_of[row.fooled[0]] if row.fooled else "" for row in rows]
    left = {"clean": sum(row.right for row in rows)}
    for line in lines:
        left[line] = (left["clean"] if len(left) == 1 else left[list(left)[-1]]) - first.count(line)
    details = {
        "engine": engine,
        "without": without,
        "left": left,
        "published": PUBLISHED,
        "eps": EPS,
        "device": device.type,
    }
    for name, kept in (("clean", left["clean"]), ("autoattack", left[list(left)[-1]])):
        made.append(
            Record(
                "metric", f"mnist parity/{name}, {engine}", kept / n, n, wilson(kept, n), seed=seed, details=details,
                seconds=ledger.seconds(),
            )
        )  # fmt: skip
    return made


def mnist(folder: Path) -> ImageSet:
    """The 10,000 test images in the official layout."""
    pixels = np.frombuffer(
        gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    tensor = torch.from_numpy(pixels.copy()).view(-1, 1, 28, 28)
    classes, index = tuple(map(str, range(10))), torch.arange(len(tensor))
    mark = content_fingerprint([tensor])
    return ImageSet(
        "mnist", "test", classes, torch.from_numpy(labels.copy()).long(), index, mark, (1, 28, 28), tensor
    )


if __name__ == "__main__":
    main()
