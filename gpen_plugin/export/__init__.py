"""Export to ONNX and torch.export, verified against PyTorch."""
