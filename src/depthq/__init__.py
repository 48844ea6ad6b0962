"""depthq: images to a few discrete codes per position and back, in honest bits.

Each name loads what it needs with its first use, PyTorch included.
"""

from typing import TYPE_CHECKING

from depthq.lazy import lazy_names

if TYPE_CHECKING:
    from depthq import analysis, features
    from depthq import codes as codes
    from depthq import likelihoods as likelihoods
    from depthq import models as models
    from depthq import ops as ops
    from depthq import pixels as pixels
    from depthq import priors as priors
    from depthq import quantizers as quantizers
    from depthq import units as units
    from depthq.codes import Codes
    from depthq.codes.file import read_codes
    from depthq.coding import compress, decompress
    from depthq.models import DQAE, DQAEConfig, DQAEOutput
    from depthq.priors import CodePrior
    from depthq.quantizers import (
        BinaryQuantizer,
        CodebookHealth,
        DepthwiseQuantizer,
        QuantizerOutput,
        ResidualQuantizer,
        ScalarQuantizer,
        SharedQuantizer,
    )
    from depthq.training import train
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "DQAE": "depthq.models",
            "BinaryQuantizer": "depthq.quantizers",
            "CodePrior": "depthq.priors",
            "CodebookHealth": "depthq.quantizers",
            "Codes": "depthq.codes",
            "DQAEConfig": "depthq.models",
            "DQAEOutput": "depthq.models",
            "DepthwiseQuantizer": "depthq.quantizers",
            "QuantizerOutput": "depthq.quantizers",
            "ResidualQuantizer": "depthq.quantizers",
            "ScalarQuantizer": "depthq.quantizers",
            "SharedQuantizer": "depthq.quantizers",
            "analysis": None,
            "codes": None,
            "compress": "depthq.coding",
            "decompress": "depthq.coding",
            "features": None,
            "likelihoods": None,
            "models": None,
            "ops": None,
            "pixels": None,
            "priors": None,
            "quantizers": None,
            "read_codes": "depthq.codes.file",
            "train": "depthq.training",
            "units": None,
        },
    )

__version__ = "0.2.0"

__all__ = [
    "DQAE",
    "BinaryQuantizer",
    "CodePrior",
    "CodebookHealth",
    "Codes",
    "DQAEConfig",
    "DQAEOutput",
    "DepthwiseQuantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "SharedQuantizer",
    "analysis",
    "compress",
    "decompress",
    "features",
    "read_codes",
    "train",
]
