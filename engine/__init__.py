"""What surrounds a training run: presets, devices, precision, schedule, checkpoints, logs."""
