"""What things cost, as ratios within one interleaved run."""
