"""Training: the loop, optimizer and schedule, averages, checkpoints, logs."""
