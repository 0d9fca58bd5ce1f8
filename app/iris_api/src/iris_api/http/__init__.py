"""The API as FastAPI serves it: paths, errors, documentation, and what every request gets."""
