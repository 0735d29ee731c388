"""Convert frames of HDR or wide gamut to BT.709, by the formulas of the standards."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

# Code points of ITU-T H.273, as FFmpeg numbers them.
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12  # primaries
PQ, HLG = 16, 18  # transfer functions
SDR_WHITE, HDR_PEAK = 203.0, 1000.0  # cd/m2: reference white of ITU-R BT.2408; peak of the display that is assumed
SDR_GAMMA = 2.4  # ITU-R BT.1886

_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {  # x, y of red, green, blue and white
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),  # BT.709
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_NAMES = {PQ: "PQ", HLG: "HLG", BT2020: "BT.2020", DCI_P3: "DCI-P3", DISPLAY_P3: "Display P3"}
_LEVELS = 1 << 16
_ROOTS = np.linspace(0, 1, 1 << 14)  # square roots of light: fine enough that no table adds a tenth of a gray level
_ENCODED = np.rint(_ROOTS ** (2 / SDR_GAMMA) * 255).astype(np.uint8)


@dataclass(frozen=True)
class WideColor:
    """Code points of primaries and transfer function that BT.709 does not cover."""

    primaries: int
    transfer: int

    @classmethod
    def of(cls, primaries: int, transfer: int) -> "WideColor | None":
        """None for colors of BT.709 or similar; HDR without primaries has those of BT.2020."""
        if transfer in (PQ, HLG):
            return cls(primaries if primaries in _CHROMATICITIES else BT2020, transfer)
        return cls(primaries, transfer) if primaries in (BT2020, DCI_P3, DISPLAY_P3) else None

    def __str__(self) -> str:
        names = [_NAMES[code] for code in (self.transfer, self.primaries) if code in _NAMES]
        return ", ".join(names)

    def to_bt709(self, frame: np.ndarray) -> np.ndarray:
        """Convert a frame, (H, W, 3) uint16 RGB, full range, to (H, W, 3) uint8 BGR.

        HDR is mapped with the diffuse white of BT.2408 as white; highlights are compressed by the curve of BT.2390,
        which leaves dark and middle tones unchanged. Colors outside the gamut are clipped.
        """
        light = _linear_light(self.transfer)[frame]  # [H, W, 3], 1 = SDR white
        light = cv2.transform(light, np.linalg.inv(_to_xyz(1)) @ _to_xyz(self.primaries))
        np.maximum(light, 0, out=light)
        if self.transfer in (PQ, HLG):
            brightest = cv2.max(cv2.max(light[..., 0], light[..., 1]), light[..., 2])
            light *= _look_up(_compression(), brightest * (SDR_WHITE / HDR_PEAK))[..., None]
        return _look_up(_ENCODED, light[..., ::-1])


@functools.cache
def _linear_light(transfer: int) -> np.ndarray:
    """Light of each 16 bit value, float32, 1 = SDR white.

    HLG's system gamma of 1.2 is applied to each channel, as the difference of BT.709's OETF and BT.1886 does in SDR.
    BT.2100 applies it to luminance; then colors would be paler than those of the same scene in SDR.
    """
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == PQ:
        light = pq_to_nits(signal) / SDR_WHITE
    elif transfer == HLG:  # inverse OETF of BT.2100, Table 5
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = scene**1.2 * (HDR_PEAK / SDR_WHITE)
    else:
        light = signal**SDR_GAMMA
    return light.astype(np.float32)


def _look_up(table: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Read a table over evenly spaced square roots of light, from 0 to 1."""
    index = np.sqrt(np.minimum(light, 1)) * (len(table) - 1) + 0.5
    return table[index.astype(np.uint16)]


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """EOTF of PQ, BT.2100 Table 4: [0, 1] to cd/m2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    powered = np.power(signal, 1 / m2)
    return 10000 * np.power(np.maximum(powered - c1, 0) / (c2 - c3 * powered), 1 / m1)


def nits_to_pq(nits: np.ndarray | float) -> np.ndarray:
    """Inverse of `pq_to_nits`."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    powered = np.power(np.maximum(nits, 0) / 10000, m1)
    return np.power((c1 + c2 * powered) / (1 + c3 * powered), m2)


@functools.cache
def _compression() -> np.ndarray:
    """Factors by which BT.2390's EETF (section 5.4.1) brings HDR to SDR white, for `_look_up`: 1 is the HDR peak."""
    nits = _ROOTS**2 * HDR_PEAK
    source = nits_to_pq(HDR_PEAK)
    signal, largest = nits_to_pq(nits) / source, nits_to_pq(SDR_WHITE) / source
    knee = 1.5 * largest - 0.5
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * largest
    reduced = np.where(signal < knee, nits, pq_to_nits(spline * source))
    return np.divide(reduced, nits, out=np.ones_like(nits), where=nits > 0).astype(np.float32)


def _to_xyz(primaries: int) -> np.ndarray:
    """Matrix from linear RGB to XYZ, with white adapted to D65 by scaling, (3, 3)."""
    *colors, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _CHROMATICITIES[primaries])
    columns = np.stack(colors, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    d65 = np.array([_D65[0] / _D65[1], 1, (1 - sum(_D65)) / _D65[1]])
    return matrix * (d65 / white)[:, None]
