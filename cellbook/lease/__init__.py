"""A GPU for some minutes: a plan of trainings, as many of them side by side as is worth it, stopped in time.

A plan is a list, most worth first. What is asked for is first tried for a few steps, on the device and side by side;
from the speeds follows how many iterations fit. Every job is a process of its own, so that one that fails stops no
other, and one that is stopped keeps its step in the store, from which a second lease goes on.
"""

from cellbook.lease.plan import read_plan
from cellbook.lease.work import lease
