"""All text families. A new one is a class in text_scores.py or text_formulas.py and a line here."""

from __future__ import annotations

from medvlt_lib.phantom.text_family import TextFamily
from medvlt_lib.phantom.text_formulas import AnionGap, MeanArterialPressure, ShockIndex
from medvlt_lib.phantom.text_scores import Apgar, Cha2ds2Vasc, Curb65, GlasgowComaScale, Qsofa

TEXT_FAMILIES: tuple[TextFamily, ...] = (
    Curb65(),
    GlasgowComaScale(),
    Qsofa(),
    Cha2ds2Vasc(),
    Apgar(),
    AnionGap(),
    MeanArterialPressure(),
    ShockIndex(),
)
