"""Our quantizers in other people's frameworks: one module for each framework, which is imported by its name.

`depthq.compat.vector_quantize`, `depthq.compat.diffusers`, `depthq.compat.transformers`; docs/swap.md shows each.
"""
