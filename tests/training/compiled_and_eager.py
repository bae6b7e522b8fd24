"""Train a little, eagerly and compiled, in a process without checks of types, and print what both came to as JSON.

python compiled_and_eager.py FOLDER BACKEND SETTINGS_AS_JSON
"""

import json
import logging
import sys

import torch
from safetensors.torch import load_file

from counterpart import jobs
from counterpart.config import resolve


def main(folder: str, backend: str, layer: str) -> None:
    torch.set_num_threads(1)
    compile_as_asked, calls = torch.compile, []

    def compile(function, **options):
        graph = compile_as_asked(
            function, backend=backend, **{k: v for k, v in options.items() if k != "mode"}
        )

        def counted(*arguments):
            calls.append(len(arguments[2]))
            return graph(*arguments)

        return counted

    torch.compile = compile
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("counterpart").addHandler(handler)
    weights, losses = [], []
    for name in ("eager", "compiled"):
        settings = {
            "name": name, "runs": folder, "device": "cpu", "threads": 1,
            "data": {"name": "digits", "size": 8, "limit": 30, "validation": 0, "padding": 1},
            "model": {"name": "wrn-10-1", "width": 2}, "attack": {"eps": 0.1, "steps": 1},
            "optimizer": {"lr": 0.1},
            "train": {"epochs": 2, "batch_size": 12, "precision": "float32", "compile": name == "compiled"},
        }  # fmt: skip
        run = jobs.train(resolve(settings, json.loads(layer))).run
        weights.append(load_file(run.checkpoint("last")))
        losses.append([record.details["loss"] for record in run.records() if record.kind == "epoch"])
    names = [name for name, value in weights[0].items() if value.is_floating_point()]
    largest = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in names)
    print(json.dumps({"largest": largest, "losses": losses, "calls": calls, "said": said}))


if __name__ == "__main__":
    main(*sys.argv[1:])
