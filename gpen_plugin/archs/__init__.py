"""The networks: `GPEN`, the `GPENPrior` that it embeds, the `GPENDiscriminator`, and the rival `PSP`.

Importing registers them.
"""

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN, Restoration
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.inference import fold
from gpen_plugin.archs.psp_arch import PSP

__all__ = ["GPEN", "PSP", "GPENDiscriminator", "GPENPrior", "Restoration", "fold"]
