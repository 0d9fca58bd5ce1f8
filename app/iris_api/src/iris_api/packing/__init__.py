"""Makes, checks and shows bundles: `iris-model`. Nothing that serves imports it."""
