"""Where the pages of a TIFF file begin.

Pillow, OpenCV and tifffile all read the first page of a file, so any page is read by making it the first.
"""

import struct

_CLASSIC = {b"II*\0": "<", b"MM\0*": ">"}
_BIG = {b"II+\0": "<", b"MM\0+": ">"}
_KIND, _OLD_KIND = 254, 255  # NewSubfileType, SubfileType
_REDUCED, _OLD_REDUCED = 1, 2  # a bit of the first, a value of the second


def tiff_pages(data: bytes) -> tuple[list[int], int]:
    """Where the pages of a TIFF file begin.

    Args:
        data: contents of any file.
    Returns:
        Where each page's directory begins, in order, without those that the file calls reduced images of others; and
        how many these are. No page of other files, and of damaged ones as many as can be found.
    """
    pages, previews, seen = [], [], set()
    order = (_CLASSIC | _BIG).get(data[:4])
    if order is None:
        return [], 0
    is_big = data[:4] in _BIG
    count_form, entry_length, place_form = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    try:
        (start,) = struct.unpack_from(order + place_form, data, 8 if is_big else 4)
        while start and start not in seen:
            seen.add(start)
            (count,) = struct.unpack_from(order + count_form, data, start)
            first = start + struct.calcsize(count_form)
            end = first + entry_length * count
            (following,) = struct.unpack_from(order + place_form, data, end)
            reduced = _is_reduced(data, range(first, end, entry_length), order, value_at=12 if is_big else 8)
            (previews if reduced else pages).append(start)
            start = following
    except struct.error:  # cut off, or no directory there
        pass
    return (pages, len(previews)) if pages else (previews, 0)


def with_first_page(data: bytes, start: int) -> bytes:
    """The same TIFF file with the page that begins at `start` as its first."""
    order = (_CLASSIC | _BIG)[data[:4]]
    place, form = (8, "Q") if data[:4] in _BIG else (4, "I")
    changed = struct.pack(order + form, start)
    if data[place : place + len(changed)] == changed:
        return data
    return data[:place] + changed + data[place + len(changed) :]


def _is_reduced(data: bytes, entries: range, order: str, value_at: int) -> bool:
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_KIND, _OLD_KIND):
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + value_at)
            if (value & _REDUCED) if tag == _KIND else value == _OLD_REDUCED:
                return True
    return False
