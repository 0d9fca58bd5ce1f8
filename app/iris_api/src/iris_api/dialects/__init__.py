"""Other servers' APIs over the same path of prediction: MLflow's scoring server, and KServe's protocol, version 1."""
