"""ReBRAC's coefficients by dataset."""

import pytest

from experiments import agents
from experiments.configs import rebrac, td3_bc
from ilx import testing


def test_coefficients_are_the_papers():
  # Tarasov et al. 2023, table 11: beta_1 and beta_2.
  assert rebrac.paper("hopper-medium") == {"actor_bc_coef": 0.01, "critic_bc_coef": 0.001}
  assert rebrac.paper("hopper-expert") == {"actor_bc_coef": 0.1, "critic_bc_coef": 0.001}
  assert rebrac.paper("hopper-medium-replay") == {"actor_bc_coef": 0.05, "critic_bc_coef": 0.5}
  assert rebrac.paper("walker2d-expert") == {"actor_bc_coef": 0.01, "critic_bc_coef": 0.5}
  assert rebrac.paper("lunarlander-medium") == {}
  names = {
    f"{env}-{x}"
    for env in ("halfcheetah", "hopper", "walker2d")
    for x in ("random", "medium", "medium-replay", "medium-expert", "expert")
  }
  assert names == set(rebrac.PAPER)
  assert all(
    actor in (0.001, 0.01, 0.05, 0.1) and critic in (0, 0.001, 0.01, 0.1, 0.5)
    for actor, critic in rebrac.PAPER.values()
  )


def test_a_name_after_the_colon_chooses_dataset_and_coefficients():
  config = rebrac.get_config("walker2d-medium")
  assert config.dataset == "walker2d-medium"
  assert (config.agent.actor_bc_coef, config.agent.critic_bc_coef) == (0.05, 0.1)
  with pytest.raises(ValueError, match="no coefficients for it; known: halfcheetah-random,"):
    rebrac.get_config("walker2d")


@pytest.mark.parametrize("config", [td3_bc.get_config(), rebrac.get_config()])
def test_configs_make_agents(config):
  assert agents.make(config.agent, testing.continuous_spec(), steps=10).view.next_action == (
    config.agent.name == "rebrac"
  )
