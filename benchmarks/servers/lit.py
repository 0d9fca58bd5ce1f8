"""LitServe: three workers with batching, three API servers, its faster queue."""

from __future__ import annotations

import os

import joblib
import litserve
import numpy


class Iris(litserve.LitAPI):
    """The model."""

    def setup(self, device: str) -> None:
        """Load it."""
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, float]) -> list[float]:
        """Take the row out of the body."""
        return [request["petal_length"], request["petal_width"]]

    def predict(self, rows: list[list[float]]) -> numpy.ndarray:
        """Answer rows."""
        return self.model.predict_proba(numpy.asarray(rows))

    def encode_response(self, probabilities: numpy.ndarray) -> dict[str, object]:
        """Put an answer into words."""
        return {"prediction": int(probabilities.argmax()), "prediction_proba": probabilities.tolist()}


if __name__ == "__main__":
    api = Iris(max_batch_size=16, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]), fast_queue=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
