"""Three runs of streamed data, each disturbed once; `python -m experiments.chaos` does more of it."""

from experiments import chaos


def test_runs_disturbed_at_random_end_as_one_that_was_not():
  said = []
  outcomes = chaos.run(3, times=1, seed=4, kinds=["streamed bc"], steps=1_000, say=said.append)
  assert [outcome.wrong for outcome in outcomes] == [None] * 3, said
  assert [len(outcome.events) for outcome in outcomes] == [1] * 3
