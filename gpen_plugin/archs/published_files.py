"""What the published files of other methods hold, by the names of their tensors, for messages and for renaming."""

from collections.abc import Collection, Mapping

# Names that no other file has together -> what the file holds.
_MARKS: dict[tuple[str, ...], str] = {
    ("model.1.weight", "model.38.weight"): "Pix2PixHD's global generator",
    ("model1_1.1.weight", "model1_2.7.weight"): "Pix2PixHD with its local enhancer",
    ("scale0_layer0.0.weight", "scale1_layer0.0.weight"): "Pix2PixHD's discriminator",
    ("warper/flow_decoder/conv1/weight", "generator/conv_final/weight"): "GWAInet, as TensorFlow names its variables",
    ("warper.flow_decoder.conv1.weight", "generator.conv_final.weight"): "GWAInet",
}


def published_network(names: Collection[str] | Mapping) -> str | None:
    """What a file with these tensors holds, if it is one of another method; else None."""
    return next((held for marks, held in _MARKS.items() if all(mark in names for mark in marks)), None)
