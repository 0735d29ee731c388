"""The node: `gpen_plugin.Restorer` with ComfyUI's tensors."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from gpen_plugin import Restorer
from gpen_plugin.restore.selection import parse_selection

DEFAULT = "GPEN-Faces-256"  # comes with the package
FOLDER = "facerestore_models"  # below ComfyUI/models, as other face restoration nodes name it
SUFFIXES = (".pth", ".safetensors", ".onnx")


class RestoreFaces:
    """Restores the faces of each image of a batch.

    IMAGE is (B, H, W, 3) float32 RGB in [0, 1], MASK is (B, H, W) float32 in [0, 1].
    """

    DESCRIPTION = "Finds the faces of each image, restores them with GPEN and pastes them back."
    CATEGORY = "image/restoration"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE", "MASK", "IMAGE", "STRING")
    RETURN_NAMES = ("image", "mask", "faces", "report")
    OUTPUT_TOOLTIPS = (
        "the images with their faces restored",
        "how much of each pixel is restored",
        "each face before and after, side by side; one black image if there is none",
        "JSON: a list of the faces of each image, with box, score and the reason if one is left as it is",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("IMAGE",),
                "model": ([DEFAULT, *model_files()], {"tooltip": f"weight and ONNX files of models/{FOLDER}"}),
                "alpha": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "sharp_faces": (
                    ["keep", "restore"],
                    {"tooltip": "keep: a face that is as sharp as the network's result already stays as it is"},
                ),
                "detector": (["auto", "retinaface", "yunet"], {"tooltip": "auto: RetinaFace if its weights are here"}),
                "faces": ("STRING", {"default": "all", "tooltip": "all, largest, 1,3 or box:LEFT,TOP,RIGHT,BOTTOM"}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, faces):
        try:
            parse_selection(faces)
        except ValueError as error:
            return str(error)
        return True

    def restore(self, image, model, alpha, sharp_faces, detector, faces):
        restorer = open_restorer(model, sharp_faces, detector, faces)
        results, masks, tiles, report = [], [], [], []
        for each in image:
            bgr = (each[..., :3].cpu().numpy()[..., ::-1] * 65535).round().clip(0, 65535).astype(np.uint16)
            restored = restorer.restore_faces([bgr])[0]
            result = restorer.paste_back(bgr, restored, alpha=alpha)
            # what is not restored is exactly the input, whose values may lie between those of 16 bits
            covered = torch.from_numpy(restorer.coverage(bgr, restored, alpha=alpha))
            pasted = torch.from_numpy(result.image[..., ::-1].astype(np.float32) / 65535)
            results.append(torch.where(covered[..., None] > 0, pasted, each[..., :3].cpu().float()))
            masks.append(covered)
            tiles += [before_and_after(face) for face in restored]
            report.append([entry(face) for face in restored])
        side = restorer.network.out_size
        empty = torch.zeros(1, side, 2 * side, 3)
        pairs = torch.stack(tiles) if tiles else empty
        return torch.stack(results), torch.stack(masks), pairs, json.dumps(report, indent=1)


@lru_cache(maxsize=1)
def open_restorer(model, sharp_faces, detector, faces):
    """The restorer of these inputs; the last one stays open."""
    path = None if model == DEFAULT else model_path(model)
    return Restorer(path, skip_sharp=sharp_faces == "keep", detector=detector, only=faces)


def before_and_after(face):
    """A face as the network's input and output, (T, 2 T, 3) RGB."""
    after = torch.from_numpy(face.restored[..., ::-1].copy())
    before = torch.from_numpy(face.crop[..., ::-1].copy()).permute(2, 0, 1)[None]
    before = torch.nn.functional.interpolate(before, size=after.shape[:2], mode="bilinear", align_corners=False)
    return torch.cat([before[0].permute(1, 2, 0), after], dim=1)


def entry(face):
    return {
        "box": face.detected.box.round(1).tolist(),
        "score": round(float(face.detected.score), 3),
        "weight": round(float(face.weight), 3),
        "left_as_it_is": face.skip_reason,
    }


def model_files():
    """Names of the model files that ComfyUI knows."""
    folder_paths = _folder_paths()
    names = folder_paths.get_filename_list(FOLDER) if folder_paths else []
    return [name for name in names if Path(name).suffix.lower() in SUFFIXES]


def model_path(name):
    return _folder_paths().get_full_path_or_raise(FOLDER, name)


@lru_cache(maxsize=1)
def _folder_paths():
    """ComfyUI's module, with the folder registered; None outside ComfyUI."""
    try:
        import folder_paths
    except ImportError:
        return None
    if FOLDER not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    return folder_paths
