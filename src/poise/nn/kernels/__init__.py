"""Kernels of single operations, for CPUs and for Triton, behind the layers that call them."""
