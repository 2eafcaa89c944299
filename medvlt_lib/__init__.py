"""medvlt_lib: the MedVLThinker recipe as a small library. Research and teaching only, not for clinical use."""

__version__ = "0.1.0"
