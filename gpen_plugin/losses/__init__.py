"""Losses that BasicSR does not have. Importing this package registers them."""

from gpen_plugin.losses.feature_matching_loss import DiscriminatorFeatureMatchingLoss
from gpen_plugin.losses.path_lengths import path_lengths
from gpen_plugin.losses.r1_penalty import r1_penalty

__all__ = ["DiscriminatorFeatureMatchingLoss", "path_lengths", "r1_penalty"]
