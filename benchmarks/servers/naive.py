"""A model behind FastAPI as tutorials show it: a `def` endpoint, the model called once and again for each request."""

import os

import joblib
import numpy
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Flower(BaseModel):
    """The row."""

    petal_length: float
    petal_width: float


@app.post("/predict")
def predict(flower: Flower) -> dict[str, object]:
    """Answer one row."""
    row = numpy.array([[flower.petal_length, flower.petal_width]])
    probabilities = model.predict_proba(row)[0]
    return {"prediction": int(model.classes_[probabilities.argmax()]), "prediction_proba": probabilities.tolist()}
