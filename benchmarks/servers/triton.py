"""A client as its users write one: tritonclient, by HTTP or by gRPC. It prints the processor seconds that it took."""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main(kind: str, port: str, model: str, output: str, rows: int, requests: int) -> None:
    """Send requests one after the other, and print the processor seconds of all but the first."""
    # Each import is a library's: what the other takes must not count.
    if kind == "grpc":
        from tritonclient import grpc as client
    else:
        from tritonclient import http as client
    table = np.random.default_rng(1).normal(size=(rows, 10))
    json_only = kind == "json"
    options = {} if kind == "grpc" else {"binary_data": not json_only}
    with client.InferenceServerClient(f"127.0.0.1:{port}") as server:
        started = 0.0
        for number in range(requests + 1):
            given = client.InferInput("input", list(table.shape), "FP64")
            given.set_data_from_numpy(table, **options)
            wanted = [client.InferRequestedOutput(output, **options)]
            found = server.infer(model, [given], outputs=wanted).as_numpy(output)
            assert found.size == rows, found.shape
            if number == 0:
                started = time.process_time()
                print("ready", flush=True)
                sys.stdin.readline()
        print(json.dumps(time.process_time() - started), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:]))
