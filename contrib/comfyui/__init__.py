"""ComfyUI nodes of gpen_plugin. Copy or link this folder into ComfyUI/custom_nodes."""

from .nodes import RestoreFaces

NODE_CLASS_MAPPINGS = {"GPENRestoreFaces": RestoreFaces}
NODE_DISPLAY_NAME_MAPPINGS = {"GPENRestoreFaces": "Restore Faces (GPEN)"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
