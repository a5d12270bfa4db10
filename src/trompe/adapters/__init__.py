"""Explanations of other libraries, made ready to be attacked.

Neither captum nor zennit is imported before it is used.
"""

from trompe.adapters.captum_adapter import captum
from trompe.adapters.zennit_adapter import zennit

__all__ = ["captum", "zennit"]
