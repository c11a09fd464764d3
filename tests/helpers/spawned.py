"""What `test_ops` runs in spawned processes. Imports nothing of the project, so that only what is sent can install."""

import pickle

Outcome = tuple[str, list[float]]


def unpickle_layers(plain: bytes, first: bytes) -> Outcome:
    """What unpickling a layer of mmcv says without the stand-in, and the layer's output when it comes in `OpsFirst`."""
    import mmdet.registry  # noqa: F401
    import torch

    try:
        pickle.loads(plain)
        alone = "loads"
    except ImportError as error:
        alone = str(error)
    layer = pickle.loads(first).value
    return alone, layer(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]])).flatten().tolist()
