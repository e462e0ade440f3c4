import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilx.data.convert import events, parquet


def repeated(value, count):
  """A column of one value, stored once."""
  return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def test_small_files_that_unpack_to_much_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(parquet, "_MOST", 1 << 20)
  monkeypatch.setattr(parquet, "_AT_ONCE", 1 << 20)
  path = tmp_path / "a.parquet"
  columns = {"t": pa.array(np.arange(400.0)), "s": repeated("x" * 500_000, 400)}
  pq.write_table(pa.table(columns), path, compression="zstd")
  most = 1000 * path.stat().st_size + (1 << 20)
  assert most < 400 * 500_000
  pool = pa.default_memory_pool()
  before = pool.bytes_allocated()
  for read in (lambda: parquet.rows(path, None), lambda: list(events.records(path))):
    with pytest.raises(ValueError, match=r"a\.parquet: \d+ bytes that unpack to \d+ or more"):
      read()
  assert len(list(events.records(path, columns=["t"]))) == 400  # others are not read
  assert pool.bytes_allocated() - before < 1 << 20


def test_few_rows_are_decoded_at_once_where_they_may_be_long(tmp_path, monkeypatch):
  monkeypatch.setattr(parquet, "_AT_ONCE", 1 << 20)
  path = tmp_path / "a.parquet"
  pq.write_table(pa.table({"s": repeated("x" * 200_000, 40), "t": np.arange(40)}), path)
  with pq.ParquetFile(path) as file:
    assert max(len(batch) for batch in parquet.batches(file, path, ["s", "t"])) == 5
    assert [len(batch) for batch in parquet.batches(file, path, ["t"])] == [40]


def test_lists_without_end_are_refused(tmp_path):
  path = tmp_path / "a.parquet"
  lists = pa.ListArray.from_arrays(pa.array([0, 40_000_000], pa.int32()), pa.array(np.zeros(40_000_000, np.int64)))
  pq.write_table(pa.table({"x": lists}), path, compression="zstd")
  assert path.stat().st_size < 50_000
  with pytest.raises(ValueError, match=r"a\.parquet: \d+ bytes that unpack to 320000000 or more"):
    parquet.rows(path, ["x"])


def test_rows_of_one_value_are_found_and_other_groups_not_read(tmp_path):
  path = tmp_path / "a.parquet"
  table = pa.table({"e": np.repeat([0, 1, 2], 4), "x": np.arange(12), "s": [str(i) for i in range(12)]})
  pq.write_table(table, path, row_group_size=4)
  assert parquet.rows(path, ["x", "s"], "e", 1).to_pydict() == {"x": [4, 5, 6, 7], "s": ["4", "5", "6", "7"]}
  assert parquet.rows(path, ["x", "e"], "e", 5).to_pydict() == {"x": [], "e": []}
  assert parquet.rows(path, None).equals(table)
  content = bytearray(path.read_bytes())
  with pq.ParquetFile(path) as file:
    start = file.metadata.row_group(2).column(1).dictionary_page_offset
  content[start : start + 40] = b"\xff" * 40
  path.write_bytes(content)
  assert parquet.rows(path, ["x"], "e", 1)["x"].to_pylist() == [4, 5, 6, 7]
  with pytest.raises(ValueError, match=r"a\.parquet: no Parquet file that can be read"):
    parquet.rows(path, ["x"], "e", 2)
  with pytest.raises(ValueError, match=r"no column 'y'; there are e, x, s"):
    parquet.rows(path, ["y"])
  with pytest.raises(ValueError, match=r"a\.parquet"):
    parquet.rows(path, ["x"], "s", 1)
