"""Several runs beside each other: one self-contained HTML file, as of one run.

    python -m experiments.report runs/sweep runs/bc-seed0 --output=compare.html

Runs that are the same but for the seed are one group. What a group scores is of its last checkpoints, never of the best
on the way, and of finished runs alone; the others are shown as what they are.
"""
