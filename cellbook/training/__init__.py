"""Training, the same for all methods: what a method is given, the loop, checkpoints, several processes as one."""

from cellbook.training.loop import load_kept, load_run, steps, train, train_run
from cellbook.training.state import Batch, Method, Sampler, State, place, treatment_codes
