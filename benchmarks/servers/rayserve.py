"""Ray Serve: three replicas with dynamic request batching."""

from __future__ import annotations

import os
import signal

import joblib
import numpy
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=int(os.environ["WORKERS"]), max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Iris:
    """The model."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.001)
    async def predict(self, rows: list[list[float]]) -> list[list[float]]:
        """Answer rows."""
        return self.model.predict_proba(numpy.asarray(rows)).tolist()

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answer one request."""
        row = await request.json()
        probabilities = await self.predict([row["petal_length"], row["petal_width"]])
        return {"prediction": int(numpy.argmax(probabilities)), "prediction_proba": probabilities}


if __name__ == "__main__":
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=os.environ["HOME"] + "/ray")
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Iris.bind(), route_prefix="/predict")
    signal.pause()
