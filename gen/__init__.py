"""Configuration, command line and emitters of sliceforge."""

from sliceforge.gen.config import AcceleratorConfig

__all__ = ["AcceleratorConfig"]
