"""What measures is held to the truth, too: no test here says how fast anything must be."""
