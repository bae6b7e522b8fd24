"""Counterpart's records in MLflow: counterpart train digits/at --track track_mlflow:log, from this folder."""

import mlflow

started = {}


def log(record, run):
    """Log the numbers of an epoch or of a result; one run of MLflow for each run folder."""
    if run not in started:
        started[run] = mlflow.MlflowClient().create_run("0", run_name=run.resolve().name).info.run_id
    if record.kind == "epoch":
        numbers = {k: float(v) for k, v in record.details.items() if isinstance(v, int | float)}
        mlflow.log_metrics(numbers, step=record.details["epoch"] + 1, run_id=started[run])
    elif record.value is not None:
        mlflow.log_metric(record.name.replace("%", " per cent"), record.value, run_id=started[run])
