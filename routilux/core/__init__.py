"""What a job means: pure data and pure functions, without clock, I/O, threads, randomness or user code."""
