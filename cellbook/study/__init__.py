"""What the studies of all papers share: trainings, profiles, numbers with intervals, and how they are shown."""
