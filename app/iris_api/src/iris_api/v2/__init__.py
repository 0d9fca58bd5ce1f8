"""The Open Inference Protocol, version 2: the same predictions under the names that its clients know."""
