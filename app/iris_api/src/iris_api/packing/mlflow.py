"""Reads a model as MLflow saves it, a folder with a file MLmodel, without MLflow: what `iris-model pack` takes of it.

Source: the functions `_load_model` of mlflow/sklearn, mlflow/xgboost and mlflow/lightgbm in MLflow 3.17, which read
what every version from 1.22 on has written.
"""

import importlib
import importlib.metadata
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from iris_api.bundle.manifest import Kind
from iris_api.packing.samples import FeatureText, SampleError

MLMODEL = "MLmodel"
# In the order in which they are looked for; each is a flavor and the name of its loader's module.
_FLAVORS = ("sklearn", "xgboost", "lightgbm")
# Of MLflow's types: the kind of a feature, and the dtype that MLflow gives the column, by whether it is required.
_TYPES: dict[str, tuple[Kind | None, str | None, str | None]] = {
    "double": ("number", "float64", "float64"),
    "float": ("number", "float32", "float32"),
    "long": ("integer", "int64", "Int64"),
    "integer": ("integer", "int32", "Int32"),
    "boolean": ("boolean", "bool", "boolean"),
    # A category or a text: that is for the values and the estimator to tell.
    "string": (None, None, None),
    "datetime": ("datetime", "datetime", "datetime"),
}
# Rows of an example below which what follows from it, limits and shares, is no more than a guess.
_FEW_ROWS = 30


@dataclass(frozen=True)
class SavedModel:
    """What a folder of MLflow holds."""

    path: Path
    """Of the file that has the estimator."""
    suffix: str
    """Of an artifact: .joblib or .skops."""
    artifact: bytes
    sample: Any | None
    """The input example: a DataFrame with the dtypes of the signature, an array of floats, or None."""
    columns: "list[_Column]"
    code: list[Path]
    """Modules and packages that were saved with it (code_paths)."""
    notes: list[str]
    """What to tell people, a sentence each."""

    @property
    def names(self) -> list[str]:
        """Names of the example's columns; an array has none."""
        assert self.sample is not None
        if hasattr(self.sample, "columns"):
            return [str(name) for name in self.sample.columns]
        return [f"x{number}" for number in range(self.sample.shape[1])]

    def nullable(self, given: Mapping[str, FeatureText]) -> dict[str, FeatureText]:
        """Return what is known of features, with what the signature tells where nothing is said of it."""
        known = dict(given)
        for each in self.columns:
            text = known.get(each.name, FeatureText())
            if not each.required and text.nullable is None:
                known[each.name] = replace(text, nullable=True)
        return known

    def typed(self, given: Mapping[str, FeatureText]) -> dict[str, FeatureText]:
        """Return what is known of features for the cells of a CSV: a text of the signature is one that looks else."""
        known = dict(given)
        for each in self.columns:
            text = known.get(each.name, FeatureText())
            if text.kind is None:
                known[each.name] = replace(text, kind=each.kind or "category")
        return known


def read_saved_model(folder: Path, *, needs_sample: bool) -> SavedModel:
    """Return what a folder of MLflow holds; raise SampleError for one that can't be packed.

    Args:
        folder: with the file MLmodel.
        needs_sample: whether there is no other sample than its input example.
    """
    about = _read_mlmodel(folder)
    flavors: Mapping[str, Any] = about.get("flavors") or {}
    name = next((each for each in _FLAVORS if each in flavors), None)
    if name is None:
        raise _no_flavor(folder, flavors)
    flavor = flavors[name]
    notes = _differing(folder / "requirements.txt")
    predicts = (flavors.get("python_function") or {}).get("predict_fn", "predict")
    if predicts != "predict":
        notes.append(
            f"MLflow answers {predicts} of this model; here /invocations answers predict, and /predict has both."
        )
    path, suffix, artifact = _artifact(folder, name, flavor)
    columns = _signature(folder, about)
    sample = _example(folder, about, columns) if needs_sample else None
    if sample is not None and len(sample) < _FEW_ROWS:
        notes.append(
            f"The input example has only {len(sample)} rows: the limits of what is accepted, and what drift is "
            "compared with, follow from them. Give rows of the training data as SAMPLE."
        )
    return SavedModel(
        path,
        suffix,
        artifact,
        sample,
        columns,
        _code(folder, flavor),
        notes,
    )


@dataclass(frozen=True)
class _Column:
    name: str
    kind: Kind | None
    dtype: str | None
    required: bool


def _read_mlmodel(folder: Path) -> dict[str, Any]:
    path = folder / MLMODEL
    try:
        import yaml
    except ImportError:
        raise SampleError(
            f"{path}: it is YAML, which PyYAML reads, and that is not installed: pip install pyyaml."
        ) from None
    try:
        about = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SampleError(
            f"{path}: cannot be read ({error.strerror}). A folder to pack is one that mlflow.sklearn.save_model or "
            "`mlflow artifacts download` made; of any other model give the file, .joblib or .skops."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SampleError(f"{path}: it is no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(about, dict):
        raise SampleError(f"{path}: it holds no flavors. Save the model again by MLflow.")
    return about


def _no_flavor(folder: Path, flavors: Mapping[str, Any]) -> SampleError:
    loader = (flavors.get("python_function") or {}).get("loader_module", "")
    what = ", ".join(map(str, flavors)) or "none"
    why = (
        "it is code of its own, a PythonModel: save what it calls by the flavor of that library"
        if loader == "mlflow.pyfunc.model"
        else "save the estimator itself, with scikit-learn's interface: joblib.dump(model, 'model.joblib')"
    )
    return SampleError(
        f"{folder / MLMODEL}: its flavors are {what}{f' (loader {loader})' if loader else ''}, and what is packed is "
        f"{', '.join(_FLAVORS)}; {why}."
    )


def _artifact(folder: Path, name: str, flavor: Mapping[str, Any]) -> tuple[Path, str, bytes]:
    """Return the path of the estimator, the suffix of the artifact that is made of it, and that artifact's bytes."""
    path = folder / str(flavor.get("pickled_model") or flavor.get("data") or "model.pkl")
    kind = str(flavor.get("model_class", ""))
    if name != "sklearn" and (not kind or kind.endswith("Booster")):
        raise SampleError(
            f"{path}: it is a Booster, which answers no table of features. Save the model with scikit-learn's "
            f"interface, {'XGBClassifier' if name == 'xgboost' else 'LGBMClassifier'} or ...Regressor."
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SampleError(f"{folder / MLMODEL}: the model is not in the folder, but at {path}.")
    try:
        if name == "xgboost":
            return path, ".joblib", _dumped_xgboost(path, kind)
        content = path.read_bytes()
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error.strerror}). Save or download the model again.") from None
    if flavor.get("serialization_format") == "skops":
        return path, ".skops", content
    # joblib reads what pickle and cloudpickle have written; it stays byte for byte what MLflow has saved.
    return path, ".joblib", content


def _dumped_xgboost(path: Path, kind: str) -> bytes:
    """Return an estimator, which MLflow keeps in XGBoost's own format, as joblib writes it."""
    module, _, name = kind.rpartition(".")
    if module != "xgboost.sklearn":
        raise SampleError(f"{path}: its class is {kind}, and none of xgboost.sklearn.")
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        estimator = getattr(importlib.import_module(module), name)()
        estimator.load_model(path)
    except ImportError:
        raise SampleError(
            f"{path}: XGBoost is not installed. Pack in the environment of the model: pip install -r "
            f"{path.parent / 'requirements.txt'}."
        ) from None
    except Exception as error:
        raise SampleError(f"{path}: XGBoost cannot load it ({' '.join(str(error).split())[:200]}).") from None
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def _signature(folder: Path, about: Mapping[str, Any]) -> list[_Column]:
    """Return the columns that a signature tells; none where it is one of a tensor, or where there is none."""
    given = (about.get("signature") or {}).get("inputs")
    try:
        parts = json.loads(given) if isinstance(given, str) else given or []
    except ValueError as error:
        raise SampleError(f"{folder / MLMODEL}: the inputs of its signature are no JSON ({error}).") from None
    columns = []
    for number, part in enumerate(parts):
        if part.get("type") == "tensor":
            return []
        name, kind = str(part.get("name", number)), str(part.get("type"))
        if kind not in _TYPES:
            raise SampleError(
                f"{folder / MLMODEL}: {name} is of type {kind!r} by the signature. A feature is one of "
                f"{', '.join(_TYPES)}: make one or several of these of it, and do the rest in a step of the model."
            )
        required = part.get("required", not part.get("optional", False))
        of_feature, dtype, of_nullable = _TYPES[kind]
        columns.append(_Column(name, of_feature, dtype if required else of_nullable, bool(required)))
    return columns


def _example(folder: Path, about: Mapping[str, Any], columns: Sequence[_Column]) -> Any:
    """Return the input example as MLflow's server would give it to the model."""
    saved = about.get("saved_input_example_info") or {}
    path = folder / str(saved.get("artifact_path", "input_example.json"))
    remedy = (
        "Save the model with some: save_model(..., input_example=frame.sample(500)), or give rows of the training "
        "data, a CSV or .parquet, as SAMPLE."
    )
    try:
        # It may have NaN, as Python's json writes it.
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise SampleError(f"{folder}: there is no input example, and so no rows to ask the model. {remedy}") from None
    except ValueError as error:
        raise SampleError(f"{path}: it is no JSON ({error}). {remedy}") from None
    if isinstance(content, dict) and content.keys() == {"inputs"}:
        content = content["inputs"]
    try:
        import pandas as pd

        if isinstance(content, dict) and {"columns", "data"} <= content.keys():
            frame = pd.DataFrame(content["data"], columns=content["columns"])
        else:
            frame = pd.DataFrame(content)
            if isinstance(content, list) and content and isinstance(content[0], list):
                if columns and len(columns) == len(frame.columns):
                    frame.columns = pd.Index([each.name for each in columns])
                else:
                    return _as_array(path, frame)
    except ImportError:
        raise SampleError(f"{path}: a table takes pandas, and that is not installed: pip install pandas.") from None
    except (ValueError, TypeError) as error:
        raise SampleError(f"{path}: it is no table ({' '.join(str(error).split())[:200]}). {remedy}") from None
    if len(frame) < 2:
        raise SampleError(f"{path}: it needs at least two rows, but has {len(frame)}. {remedy}")
    frame.columns = frame.columns.map(str)
    if missing := [each.name for each in columns if each.name not in frame.columns and each.required]:
        raise SampleError(f"{path}: it lacks the columns {', '.join(missing)} of the signature. {remedy}")
    for each in columns:
        if each.name in frame.columns and each.dtype:
            frame[each.name] = _typed(path, frame[each.name], each)
    return frame


def _as_array(path: Path, frame: Any) -> Any:
    try:
        return frame.to_numpy(dtype="float64")
    except (ValueError, TypeError):
        raise SampleError(
            f"{path}: it has more than numbers, and no names. Save the model with a DataFrame as input_example."
        ) from None


def _typed(path: Path, values: Any, column: _Column) -> Any:
    import pandas as pd

    try:
        if column.dtype == "datetime":
            return pd.to_datetime(values, format="ISO8601")
        if column.dtype and column.dtype.startswith("int") and values.isna().any():
            # So MLflow's client sends them, and so the model gets them: as floats, with NaN.
            return values.astype("float64")
        return values.astype(column.dtype)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SampleError(f"{path}: {column.name} is not of the signature's type {column.dtype} ({reason}).") from None


def _code(folder: Path, flavor: Mapping[str, Any]) -> list[Path]:
    """Return the modules and packages that MLflow has saved with a model and puts on the path of modules."""
    place = flavor.get("code")
    if not place:
        return []
    root = folder / str(place)
    return sorted(
        each for each in root.iterdir() if each.suffix == ".py" or (each.is_dir() and (each / "__init__.py").is_file())
    )


def _differing(path: Path) -> list[str]:
    """Return a note on the packages that are installed here in another version than the model was saved with."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            wanted = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            # An empty line, an option, or a path.
            continue
        if canonicalize_name(wanted.name).startswith("mlflow") or not wanted.specifier:
            # MLflow itself is not needed to serve.
            continue
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{wanted.name} {installed} ({wanted.specifier} there)")
    if not found:
        return []
    return [
        f"Installed here otherwise than {path} says: {', '.join(found)}. What is packed are the versions here; for "
        f"those there, pack after pip install -r {path}."
    ]
