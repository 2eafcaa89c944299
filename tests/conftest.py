"""Before any test module imports torch: its threads wait as they do in a run. Properties are tested on the same
examples in every run; `--hypothesis-profile search` looks for new ones. No test notes a pass among the user's own."""

import os
import tempfile

from hypothesis import settings

from medvlt_lib.core.threads import bound_spinning

settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile("fixed")
bound_spinning()
os.environ["MEDVLT_LESSON"] = tempfile.mkdtemp(prefix="medvlt-lesson-")
