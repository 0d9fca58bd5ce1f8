"""Train the models of this repository and write their bundles: `make model`, or `models/train.py NAME ...`.

The same as `iris-model train`, for a checkout in which the package is not installed. The recipes stand in
app/iris_api/src/iris_api/packing/recipes.py.
"""

import sys
from pathlib import Path

MODELS = Path(__file__).resolve().parent


def main() -> int:
    """Train what the command line names, or all models."""
    sys.path.insert(0, str(MODELS.parent / "app" / "iris_api" / "src"))
    from iris_api.packing import cli

    return cli.main(["train", f"--models-dir={MODELS}", *(sys.argv[1:] or ["all"])])


if __name__ == "__main__":
    sys.exit(main())
