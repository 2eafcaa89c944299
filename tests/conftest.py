"""Before any test module imports torch: its threads wait as they do in a run."""

from medvlt_lib.core.threads import bound_spinning

bound_spinning()
