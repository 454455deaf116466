"""Engine builders: one folder for each target, with the same files in each."""
