"""How a streamed batch is divided: into streams, and these among hosts."""

# At least so many streams, if B has such a divisor, and about so many items of each.
_STREAMS, _ITEMS = 16, 16


def default_streams(batch_size: int) -> int:
  """The number of streams of a batch, V, whatever the number of hosts: about B / 16, or 16 for small batches.

  It is a multiple of the power of two that B is a multiple of, as far as that is not above, so that so many hosts can
  share it: 32 of 512, 8 of 200, 40 of 1000.
  """
  wanted = max(_STREAMS, batch_size // _ITEMS)
  power = min(batch_size & -batch_size, 1 << (wanted.bit_length() - 1))
  found = [n for n in range(power, min(4 * wanted, batch_size) + 1, power) if batch_size % n == 0]
  return min(found, key=lambda n: max(n / wanted, wanted / n))


def check_hosts(host: tuple[int, int], batch_size: int, streams: int) -> None:
  """Raises ValueError where the streams of a batch do not divide among the hosts; says which number would.

  Args:
    host: (h, H).
    batch_size: B.
    streams: V, which divides B.
  """
  place, hosts = host
  if not 0 <= place < hosts:
    raise ValueError(f"host {place} of {hosts}; expected one from 0 to {hosts - 1}")
  if batch_size % hosts:
    raise ValueError(f"batch_size={batch_size} does not divide among {hosts} hosts; choose a multiple of {hosts}")
  if streams % hosts:
    suited = [n for n in range(hosts, batch_size + 1, hosts) if batch_size % n == 0]
    nearest = min(suited, key=lambda n: abs(n - streams))
    raise ValueError(
      f"batch_size={batch_size}: its {streams} streams do not divide among {hosts} hosts; pass streams={nearest} on "
      "every host, or choose another batch size"
    )
