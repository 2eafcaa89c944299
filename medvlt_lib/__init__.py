"""medvlt_lib: the MedVLThinker recipe as a small library. Research and teaching only, not for clinical use."""

from medvlt_lib.core.threads import bound_spinning

__version__ = "0.1.0"

bound_spinning()
