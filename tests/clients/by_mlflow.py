"""Asks instances by MLflow's own client of its scoring server.

Run by the Python of .cache/clients: python by_mlflow.py FOLDER PORT-OF-MIXED PORT-OF-NUMERIC. It prints what came.
"""

import json
import sys
from pathlib import Path

import mlflow.models
import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from tables import customers, measures


def complaint(client: ScoringServerClient, data: object, **options: object) -> str:
    """Return what the client raises."""
    try:
        client.invoke(data, **options)
    except Exception as error:
        return str(error)
    return ""


def main(folder: Path, mixed_port: int, numeric_port: int) -> None:
    """Ask for batches, gaps, and what is wrong."""
    mixed, numeric = (ScoringServerClient("127.0.0.1", port) for port in (mixed_port, numeric_port))
    mixed.wait_server_ready(timeout=20)
    frame, numbers = customers(), measures()
    gap = pd.DataFrame({"age": [np.nan], "visits": [3], "city": ["Bern"], "vip": [True], "since": [pd.NaT]})
    known = {
        "version": mixed.get_version(),
        "mixed batch": mixed.invoke(frame).get_predictions("ndarray").tolist(),
        "mixed as a frame": mixed.invoke(frame).get_predictions("dataframe")[0].tolist(),
        "mixed row with gaps": mixed.invoke(gap)["predictions"],
        "numeric batch": numeric.invoke(numbers).get_predictions("ndarray").tolist(),
        "numeric array": numeric.invoke(numbers.to_numpy())["predictions"],
        "null where none may be": complaint(mixed, gap.assign(city=[None])),
        "wrong type": complaint(mixed, pd.concat([gap, gap]).assign(city=["Bern", 5])),
        "wrong type of a number": complaint(numeric, numbers.astype(object).assign(b="x")),
        "missing column": complaint(mixed, gap.drop(columns=["city"])),
        "params": complaint(mixed, gap, params={"threshold": 0.3}),
    }
    for name, port in (("mixed", mixed_port), ("numeric", numeric_port)):
        # What MLflow writes beside a model, for people to try a server by.
        example = (folder / name / "serving_input_example.json").read_text()
        sent = {"Content-Type": "application/json"}
        answer = requests.post(f"http://127.0.0.1:{port}/invocations", data=example, headers=sent, timeout=10)
        known[f"{name} example"] = answer.json()["predictions"]
    known["converted"] = requests.post(
        f"http://127.0.0.1:{numeric_port}/invocations",
        data=mlflow.models.convert_input_example_to_serving_input(numbers.head(3)),
        headers={"Content-Type": "application/json"},
        timeout=10,
    ).json()["predictions"]
    known["csv"] = requests.post(
        f"http://127.0.0.1:{mixed_port}/invocations",
        data=frame.to_csv(index=False),
        headers={"Content-Type": "text/csv"},
        timeout=10,
    ).json()["predictions"]
    print(json.dumps(known))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
