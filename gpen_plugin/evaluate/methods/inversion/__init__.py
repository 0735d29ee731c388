"""GAN inversion on our own prior: the rivals of Table 3 that look for a face in the prior instead of embedding it."""

from gpen_plugin.evaluate.methods.inversion.mgan_prior import MGANPrior, MGANPriorOptions
from gpen_plugin.evaluate.methods.inversion.psp import PSPMethod, PSPOptions
from gpen_plugin.evaluate.methods.inversion.pulse import Pulse, PulseOptions

__all__ = ["MGANPrior", "MGANPriorOptions", "PSPMethod", "PSPOptions", "Pulse", "PulseOptions"]
