"""The path of a prediction, from the bytes of a request's body to those of its answer, without a web framework."""
