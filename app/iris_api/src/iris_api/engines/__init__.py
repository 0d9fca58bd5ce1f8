"""What computes the answers of a bundle's model: scikit-learn or ONNX Runtime, behind one interface."""
