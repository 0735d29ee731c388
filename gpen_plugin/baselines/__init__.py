"""The methods that the paper compares GPEN with, besides plain networks: GAN inversion and DFDNet."""
