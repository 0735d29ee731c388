"""The networks: `GPEN`, the `GPENPrior` that it embeds, and the `GPENDiscriminator`. Importing registers them."""

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN, Restoration
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator

__all__ = ["GPEN", "GPENDiscriminator", "GPENPrior", "Restoration"]
