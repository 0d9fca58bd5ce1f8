"""Asks instances by KServe's own client, in its versions 1 and 2.

Run by the Python of .cache/clients: python by_kserve.py PORT-OF-MIXED PORT-OF-NUMERIC. It prints what came.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tables import customers, measures

COLUMNS = {"age": "FP64", "visits": "INT64", "city": "BYTES", "vip": "BOOL", "since": "BYTES"}
DTYPES = {"FP64": np.float64, "INT64": np.int64, "BYTES": object, "BOOL": np.bool_}
# What stands for a missing text in a tensor.
MISSING = "\ufdd0missing"


async def main(mixed_port: int, numeric_port: int) -> None:
    """Ask for batches, gaps, and what is wrong."""
    mixed, numeric = (f"http://127.0.0.1:{port}" for port in (mixed_port, numeric_port))
    frame, numbers = customers().astype(object), measures()
    frame["since"] = [None if time is None or time != time else time.isoformat() for time in frame["since"]]
    frame = frame.where(frame.notna(), None)
    objects, arrays = frame.to_dict(orient="records"), frame.to_numpy().tolist()
    gap = {"age": None, "visits": 3, "city": "Bern", "vip": True, "since": None}
    one, two = (InferenceRESTClient(RESTConfig(protocol=version, retries=0)) for version in ("v1", "v2"))

    async def answers(url: str, name: str, instances: Any) -> Any:
        return (await one.infer(url, {"instances": instances}, model_name=name))["predictions"]

    async def complaint(client: InferenceRESTClient, url: str, data: Any, name: str) -> str:
        try:
            await client.infer(url, data, model_name=name)
        except httpx.HTTPStatusError as error:
            return str(error)
        return ""

    def tensor(array: Any, *, binary: bool, datatype: str = "FP64") -> InferRequest:
        given = InferInput("input", list(array.shape), datatype)
        given.set_data_from_numpy(array, binary_data=binary)
        return InferRequest("numeric", [given])

    async def predicted(array: Any, *, binary: bool) -> list[float]:
        answer = await two.infer(numeric, tensor(array, binary=binary), model_name="numeric")
        (found,) = (output for output in answer.outputs if output.name == "prediction")
        return [float(value) for value in found.as_numpy()]

    def tensors(rows: Any, *, binary: bool, **changed: Any) -> InferRequest:
        """Return rows as a tensor for each feature; a text stands for a missing text where there is no null."""
        inputs = []
        for name, datatype in (COLUMNS | changed).items():
            column = rows[name]
            if datatype == "BYTES":
                column = column.map(lambda text: MISSING if text is None else str(text))
            given = InferInput(name, [len(column)], datatype)
            given.set_data_from_numpy(column.to_numpy(DTYPES[datatype]), binary_data=binary)
            inputs.append(given)
        return InferRequest("mixed", inputs)

    async def left(rows: Any, *, binary: bool) -> list[str]:
        answer = await two.infer(mixed, tensors(rows, binary=binary), model_name="mixed")
        (found,) = (output for output in answer.outputs if output.name == "prediction")
        return [each.decode() if isinstance(each, bytes) else each for each in found.as_numpy().tolist()]

    table = numbers.to_numpy()
    beyond = table.copy()
    beyond[2, 1] = np.nan
    print(
        json.dumps(
            {
                "ready": [
                    await one.is_model_ready(mixed, "mixed"),
                    await two.is_model_ready(numeric, "numeric"),
                    await two.is_server_live(numeric),
                    await two.is_server_ready(numeric),
                ],
                "mixed objects": await answers(mixed, "mixed", objects),
                "mixed arrays": await answers(mixed, "mixed", arrays),
                "mixed row with gaps": await answers(mixed, "mixed", [gap]),
                "numeric arrays": await answers(numeric, "numeric", table.tolist()),
                "numeric tensor": await predicted(table, binary=False),
                "numeric binary tensor": await predicted(table, binary=True),
                "mixed tensors": await left(frame[frame.age.notna()], binary=False),
                "mixed binary tensors": await left(frame, binary=True),
                "null where no tensor may": await complaint(
                    two, mixed, tensors(frame.head(3).assign(city=["Bern", None, "Zug"]), binary=True), "mixed"
                ),
                "wrong datatype": await complaint(two, mixed, tensors(frame.head(3), binary=True, vip="FP64"), "mixed"),
                "null where none may be": await complaint(one, mixed, {"instances": [gap | {"city": None}]}, "mixed"),
                "wrong type": await complaint(one, mixed, {"instances": [gap, gap | {"city": 5}]}, "mixed"),
                "wrong width": await complaint(one, numeric, {"instances": [[1.0, 2.0]]}, "numeric"),
                "no model": await complaint(one, numeric, {"instances": [[1.0]]}, "other"),
                "null in a tensor": await complaint(two, numeric, tensor(beyond, binary=True), "numeric"),
                "wrong type of a tensor": await complaint(
                    two, numeric, tensor(table.astype(str).astype(object), binary=False, datatype="BYTES"), "numeric"
                ),
                "wrong shape": await complaint(two, numeric, tensor(table[:, :3], binary=True), "numeric"),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
