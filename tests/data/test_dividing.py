"""Streams of a batch: near the number wanted, for as many hosts as can be."""

import pytest

from ilx.data import dividing


def test_the_default_number_of_streams():
  found = [dividing.default_streams(n) for n in (1, 6, 16, 64, 200, 256, 512, 1000, 1024, 4096, 1009)]
  assert found == [1, 6, 16, 16, 8, 16, 32, 40, 64, 256, 1]


def test_it_divides_the_batch_and_keeps_its_power_of_two():
  for batch_size in range(1, 2000):
    streams = dividing.default_streams(batch_size)
    assert batch_size % streams == 0 and streams <= max(64, batch_size // 4)
    assert all(streams % hosts == 0 for hosts in (2, 4, 8, 16) if batch_size % hosts == 0)


def test_hosts_that_cannot_share_are_told_what_would_do():
  dividing.check_hosts((7, 8), 256, 16)
  for host, batch_size, streams, message in (
    ((0, 3), 48, 16, "its 16 streams do not divide among 3 hosts; pass streams=12"),
    ((0, 3), 64, 16, "batch_size=64 does not divide among 3 hosts; choose a multiple of 3"),
    ((2, 2), 64, 16, "host 2 of 2; expected one from 0 to 1"),
  ):
    with pytest.raises(ValueError, match=message):
      dividing.check_hosts(host, batch_size, streams)
