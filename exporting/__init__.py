"""A generator as a folder for other programs: what it holds, its model card, and the conversion to ONNX."""
