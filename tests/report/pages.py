"""Pages of every kind, made of synthetic records: whatever may stand on one, so that a browser can look at it."""

import numpy as np

from counterpart.data.corruptions import BENCHMARK
from counterpart.records import Record
from counterpart.report.where import WhereImage, write_images

from .test_curves import curve_records
from .test_page import corrupted, union

EIGHT = 8 / 255


def add_where(run, key="w1"):
    """Add a where-profile with both maps, their random regions, an area and the picture of regions."""
    shared = {
        "where": key,
        "title": f"{run.path.name}: PGD-20, linf 8/255, n = 60",
        "data": "digits",
        "clean": 0.9,
    }
    rows = [("everything", "everything", "", 1.0, 0.4)]
    for kind, step in (("top", 0.5), ("bottom", 0.2)):
        for share in (0.05, 0.1, 0.25, 0.5):
            rows += [
                (f"{kind} {share:.0%}", kind, control, share, 0.9 - step * share - 0.02 * len(control))
                for control in ("", "other", "shifted")
            ]
    for region, kind, control, share, value in rows:
        details = {"region": region, "kind": kind, "share": share, "pixels": share, "control": control}
        name = f"where/{region}" + (f" {control}" if control else "")
        run.add([
            Record("metric", name, value, 60, (value - 0.1, value + 0.1), details={**shared, **details})
        ])  # fmt: skip
    area = {**shared, "area": "bottom - top"}
    run.add([Record("metric", "where/area bottom - top", 0.05, 60, (-0.01, 0.11), details=area)])
    half = np.arange(256).reshape(16, 16) < 128
    images = [WhereImage(str(i), np.full((1, 16, 16), 0.5, np.float32), {"top 50%": half}) for i in range(6)]
    file = run.path / "where" / "regions.png"
    file.parent.mkdir(exist_ok=True)
    write_images(images, file)
    record = run.artifact(file, "where regions", "Images and their regions.")
    run.add([Record(**{**vars(record), "details": {**record.details, "where": key}})])


def add_audit(run, honest, norm="linf"):
    """Add an audit of thirteen behaviours, with how each looks: 1 as it should, 0 suspicious, None too few images."""
    for number, value in enumerate(honest):
        details = {
            "audit": "a1", "norm": norm, "eps": EIGHT, "numbers": {"FGSM": 0.25, "PGD": 0.5},
            "verdict": "PGD finds at least what one step finds, and this sentence is as long as some are",
        }  # fmt: skip
        run.add([Record("metric", f"audit/behaviour number {number}", value, 100, details=details)])


def everything(make_run, records, name="everything"):
    """A part model of which all is known: radii, union, claim, doubts, parts, corruptions, where-profile and audit."""
    run = make_run(name)
    run.add(records.epochs(12, burn_in=3, phase="part"))
    run.add(
        curve_records(records, "AT", doubts={"gap between attacks": "The first misses what others find."})
    )
    run.add(union({"clean": 0.8, "linf": 0.4, "l2": 0.5, "worst case": 0.35}))
    claim = {"evaluation": "k1", "claim": "60 %", "verdict": "refuted", "eps": EIGHT, "norm": "linf"}
    run.add([Record("metric", "claim/60 %", 0.3, 1000, (0.27, 0.33), details=claim)])
    parts = {f"part number {i}": (0.4, 20) for i in range(30)}
    values = {f"mIoU {how}": 0.5 for how in ("clean", "under PGD-20", "under PGD-20 on the parts")}
    run.add(records.part_metrics(values, per_part=parts))
    run.add(corrupted(list(BENCHMARK), [1, 2, 3, 4, 5], key=f"c-{name}"))
    add_where(run)
    add_audit(run, [1, 0, 0, None, *[1] * 9])
    records.panel(run, size=48, channels=3, parts=["background", *parts])
    return [run.path]


def collapsed(make_run, records):
    """A model that always gives the same answer."""
    run = make_run("collapsed")
    run.add(records.epochs(3))
    doubts = {"answers hardly vary": "100 % of the clean images get the answer zero."}
    run.add(records.metrics("AT", {"clean": 0.25, "PGD-20": 0.25, "worst case": 0.25}, doubts=doubts))
    records.panel(run)
    return [run.path]


def ten_models(make_run, records):
    """Ten models with long names, of one setting, two of which were not attacked; with a table by class."""
    paths = []
    for i in range(10):
        run = make_run(f"{'a-long-run-name-with-settings=0.5+' * (i % 3 + 1)}{i}", "part", eps_low=i)
        run.add(records.epochs(4, wobble=0.01 * i))
        attacks = ("PGD-20", "apgd-ce", "apgd-t", "fab-t", "square", "APGD-50 dlr target 1")
        accuracies = {"clean": 0.9 - 0.02 * i, **dict.fromkeys(attacks, 0.5 + 0.01 * i)}
        accuracies |= {"worst case": 0.4 + 0.01 * i} if i < 8 else {}
        run.add(records.metrics("PART, uniform control", accuracies, split=("test", "validation")[i == 7]))
        run.add(corrupted(["fog", "snow"], [1, 2, 3], key=f"c{i}", value=0.5 + 0.03 * i))
        records.panel(run, count=1)
        paths.append(run.path)
    for seed in range(3):
        for method in ("at", "trades"):
            run = make_run(f"{method}/seed-{seed}", method, seed)
            run.add(
                records.metrics(
                    method.upper(), {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.45 + 0.01 * seed}
                )
            )
            paths.append(run.path)
    return paths


def three_models(make_run, records):
    """Three models side by side, of which one has an audit and all where-profiles."""
    paths = []
    for method in ("at", "part", "trades"):
        run = make_run(method, method)
        run.add(records.epochs(6))
        run.add(records.metrics(method.upper(), {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.45}))
        records.panel(run, size=96, channels=3)
        add_where(run)
        paths.append(run.path)
    add_audit(run, [1] * 13)
    return paths


KINDS = (everything, collapsed, ten_models, three_models)
