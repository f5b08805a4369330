"""The names of the engines and of the precisions of their weights."""

from typing import Literal

Backend = Literal["torch", "onnx"]
Precision = Literal["float32", "float16", "int8"]
