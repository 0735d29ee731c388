"""The user study of the paper's Figure 8: volunteers rank what methods made of the same degraded face."""
