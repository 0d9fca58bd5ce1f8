"""A model bundle: a directory with the files of a model and the manifest that describes and vouches for them."""
