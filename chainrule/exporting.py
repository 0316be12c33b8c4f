"""A run's network in the files that other programs read: a PyTorch state dict (.pth), and ONNX."""

import io
from collections.abc import Mapping

import numpy as np

from chainrule.errors import ChainruleError
from chainrule.recipe import Recipe


def pth(state: Mapping[str, np.ndarray]) -> bytes:
    """Return what ``torch.save`` writes for a state dict: tensors under their keys and nothing else.

    ``network.load_state_dict(torch.load(file, weights_only=True))`` reads it.
    """
    import torch

    file = io.BytesIO()
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, file)
    return file.getvalue()


def onnx(recipe: Recipe, state: Mapping[str, np.ndarray], class_names: tuple[str, ...], about: str) -> bytes:
    """Return the network in eval mode as an ONNX model; what goes in and out stands in its ``doc_string``.

    ``about`` says in a few words what the model is. Raises ChainruleError when the onnx library is missing,
    for a layer that cannot be written, and if the model, run, says something else than the NumPy engine.
    """
    try:
        from onnx.checker import check_model
    except ImportError:
        raise ChainruleError(
            "ONNX needs the onnx library, which is not installed: pip install 'chainrule[onnx]'"
        ) from None
    from chainrule import onnx_graph

    model = onnx_graph.model(recipe, state, class_names, about)
    check_model(model, full_check=True)
    onnx_graph.check_by_running(model, recipe, state)
    content: bytes = model.SerializeToString()
    return content
