"""Stage 01: the four question sets of a run, from the phantom world, from files, or from the Hub."""
