"""GPEN for other runtimes: ONNX files and exported programs that are held against PyTorch before they are kept."""

from gpen_plugin.export.exporting import Exported, Plan, export

__all__ = ["Exported", "Plan", "export"]
