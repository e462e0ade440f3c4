"""Looking at datasets, checking, cleaning, querying and converting them: ``python -m experiments.data``."""
