"""The methods that the paper compares GPEN with, other than plain networks: GAN inversion and DFDNet."""
