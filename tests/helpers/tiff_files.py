"""TIFF files of several pages."""

import tifffile

from helpers.restorer_parts import photograph

PAGES = [photograph(seed=seed) for seed in range(3)]


def write_tiff(path, pages=PAGES, kinds=(0, 0, 0), **options):
    """Pages in BGR order, with these values of NewSubfileType."""
    with tifffile.TiffWriter(path, **options) as file:
        for number, (page, kind) in enumerate(zip(pages, kinds, strict=True)):
            file.write(
                page[:, :, ::-1], photometric="rgb", subfiletype=kind, description=f"page {number}", metadata=None
            )
    return path
