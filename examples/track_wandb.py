"""Counterpart's records in Weights & Biases: counterpart train digits/at --track track_wandb:log, from this folder."""

import wandb

started = {}


def log(record, run):
    """Log the numbers of an epoch or of a result; one run of Weights & Biases for each run folder."""
    if run not in started:
        name = run.resolve().name
        started[run] = wandb.init(
            project="counterpart", id=name, name=name, resume="allow", reinit="create_new"
        )
    if record.kind == "epoch":
        started[run].log({k: v for k, v in record.details.items() if isinstance(v, int | float)})
    elif record.value is not None:
        started[run].summary[record.name] = record.value
