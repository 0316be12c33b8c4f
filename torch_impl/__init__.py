"""The same networks and training steps in PyTorch."""

from torch_impl.engine import Data, TorchEngine

__all__ = ["Data", "TorchEngine"]
