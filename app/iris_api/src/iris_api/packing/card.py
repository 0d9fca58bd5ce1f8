"""The model card: what a person wants to know of a bundle, as Markdown made from its manifest."""

import re
from collections.abc import Iterable, Sequence

from iris_api.bundle.manifest import NUMERIC, Environment, Feature, Kind, Manifest, Value, printable

CARD = "MODEL_CARD.md"
# Below which nothing is left of a share.
_ROUNDING = 0.0005


def model_card(manifest: Manifest) -> str:
    """Return the text of the card, in Markdown."""
    kind = [] if all(feature.is_plain for feature in manifest.features) else ["Kind"]
    parts = [
        f"# {manifest.name} {manifest.version}\n\n{manifest.description}",
        _facts(manifest),
        "## Input\n\nA value beyond what is accepted is refused; one beyond the training data gets a guess.\n\n"
        + _table(
            ("Feature", *kind, "Description", "Unit", "Training data", "Accepted"),
            (
                (
                    _code(feature.name),
                    *([feature.kind] if kind else []),
                    _text(feature.description),
                    _text(feature.unit),
                    _training(feature),
                    _accepted(feature) + (", or missing" if feature.nullable else ""),
                )
                for feature in manifest.features
            ),
        ),
        "## Output\n\n" + _output(manifest),
        "## Quality\n\n" + _table(("Metric", "Value"), ((_words(k), f"{v:g}") for k, v in manifest.metrics.items())),
        "## Training\n\n" + _table(("", ""), ((_text(_words(k)), _text(v)) for k, v in manifest.training.items())),
        "## Example\n\n" + _example(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _training(feature: Feature) -> str:
    missing = [f"missing {feature.missing:.1%}"] if feature.nullable else []
    if feature.kind in NUMERIC:
        _, least, greatest, _ = feature.limits
        return ", ".join([f"{least:g} to {greatest:g}", *missing])
    shares = feature.shares or []
    known = [f"{_code(str(each.value))} {each.share:.1%}" for each in shares]
    rest = 1 - sum(each.share for each in shares) - feature.missing
    return ", ".join([*known, *([f"other {rest:.1%}"] if known and rest > _ROUNDING else []), *missing])


def _accepted(feature: Feature) -> str:
    if feature.kind in NUMERIC:
        least, _, _, greatest = feature.limits
        return f"{least:g} to {greatest:g}"
    if feature.kind == "category":
        known = feature.values or []
        # Those that are not frequent do not stand here.
        return "any category" if feature.open else f"{len(known)} categories"
    return {"boolean": "true or false", "text": "any text", "date": "any date"}.get(feature.kind, "any date and time")


def _environment(own: Environment) -> str:
    packages = ", ".join(f"{_text(name)} {_text(version)}" for name, version in own.packages.items())
    code = f"; own code in {', '.join(map(_code, own.code))}" if own.code else ""
    reasons = "".join(f"; not for {python}: {_text(why)}" for python, why in own.not_for.items())
    return f"{packages}{code}; for Python {' and '.join(own.locks)}{reasons}"


def _facts(manifest: Manifest) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    return _table(
        ("", ""),
        [
            ("Task", manifest.task),
            ("Artifact", f"`{manifest.artifact}`, sha256 `{manifest.sha256}`"),
            ("Made with", libraries),
            ("ONNX", _onnx(manifest)),
            *([("Environment", _environment(manifest.environment))] if manifest.environment else []),
            *(
                (
                    f"Served by {engine}",
                    f"{cost.call_us:.0f} us a call, {cost.row_us:.1f} us a further row, {cost.memory_mb:.0f} MB",
                )
                for engine, cost in (manifest.costs or {}).items()
            ),
        ],
    )


def _onnx(manifest: Manifest) -> str:
    if manifest.onnx is None:
        return f"none: {manifest.no_onnx_reason}"
    proof = manifest.onnx.proof
    same = "same classes, probabilities" if manifest.probabilities else "same classes" if manifest.classes else "values"
    return (
        f"`{manifest.onnx.artifact}`, proven on {sum(proof.points.values())} rows with onnxruntime "
        f"{proof.onnxruntime}: {same} within {proof.largest_difference:.0e}"
    )


def _output(manifest: Manifest) -> str:
    target = manifest.target
    unit = f", in {target.unit}" if target.unit else ""
    text = f"{_code(target.name)}: {_text(target.description)}{_text(unit)}."
    if manifest.scores:
        text += f" Answers carry what `{manifest.scores.method}` says, as `scores`."
    if manifest.outputs:
        head, outputs = ("Output", "Description", "Unit"), manifest.outputs
        return f"{text}\n\n" + _table(
            head, ((_code(each.name), _text(each.description), _text(each.unit)) for each in outputs)
        )
    if manifest.classes is None:
        return text
    rows = ((_code(str(each.value)), _text(each.name), f"{each.share:.1%}") for each in manifest.classes)
    probabilities = "" if manifest.probabilities else " The answer has no probabilities."
    return f"{text}{probabilities}\n\n" + _table(("Prediction", "Name", "Share of the training data"), rows)


def _example(manifest: Manifest) -> str:
    sample = manifest.golden_samples[0]
    answer = _text(repr(sample.prediction))
    if manifest.classes:
        answer += f" ({_text(manifest.class_name(sample.prediction))})"
    kinds = {feature.name: feature.kind for feature in manifest.features}
    given = ", ".join(f"{_text(name)} {_value(kinds[name], value)}" for name, value in sample.input.items())
    return f"{given}: {answer}."


def _value(kind: Kind, value: Value) -> str:
    """Return a value of the example; a category stands in the table of the input if it is frequent, and not here."""
    if isinstance(value, bool | None):
        return "missing" if value is None else str(value).lower()
    if isinstance(value, int | float) and kind != "category":
        return f"{value:g}"
    return _code(str(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # A cell ends at the next |, even within code, and a row with its line.
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str) -> str:
    """Return a text as code, whatever is in it: the quotes are more backticks than it has in a row."""
    quotes = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if len(quotes) > 1 or text != text.strip() else ""
    return f"{quotes}{space}{printable(text)}{space}{quotes}"


def _text(value: object) -> str:
    """Return a text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", printable(str(value)))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
