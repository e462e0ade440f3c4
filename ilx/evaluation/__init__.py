"""Scores of policies: rollouts in EnvPool, statistics over episodes and seeds, videos."""
