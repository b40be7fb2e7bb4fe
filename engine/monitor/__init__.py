"""What a run shows of itself: metrics, live view, start-up table, FLOPs, memory."""
