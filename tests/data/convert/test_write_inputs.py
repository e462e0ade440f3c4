"""A conversion goes on only where the files that it reads are those it began with."""

import os

import pytest
from test_write import Numbers, Stopped, stop_at

from ilx.data import read_info
from ilx.data.convert.write import write


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "in" / "deep").mkdir(parents=True)
  (tmp_path / "in" / "a.bin").write_bytes(b"12")
  (tmp_path / "in" / "deep" / "b.bin").write_bytes(b"34")
  return tmp_path / "in"


def cut(folder, output, attribute="files"):
  """A conversion that was stopped behind its third episode; the source to go on with."""
  sources = Numbers(), Numbers()
  for source in sources:
    setattr(source, attribute, [folder / "a.bin", folder / "deep"] if attribute == "files" else folder)
  with pytest.raises(Stopped):
    write(sources[0], output, progress=stop_at(3))
  return sources[1]


def touch(folder):
  os.utime(folder / "a.bin", ns=(0, 1))


def grow(folder):
  status = (folder / "deep" / "b.bin").stat()
  (folder / "deep" / "b.bin").write_bytes(b"345")
  os.utime(folder / "deep" / "b.bin", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("attribute", ["files", "path", "root"])
@pytest.mark.parametrize(
  ("change", "message"),
  [
    (touch, r"a\.bin has changed; to convert what is there now, remove the folder"),
    (grow, r"deep/b\.bin has changed"),
    (lambda folder: (folder / "deep" / "b.bin").unlink(), r"deep/b\.bin is gone"),
    (lambda folder: (folder / "deep" / "c.bin").write_bytes(b""), r"deep/c\.bin is new"),
  ],
)
def test_changed_files_are_refused(folder, tmp_path, attribute, change, message):
  source = cut(folder, tmp_path, attribute)
  change(folder)
  with pytest.raises(ValueError, match=rf"1\.0\.0\.incomplete holds an unfinished conversion, since when .*{message}"):
    write(source, tmp_path)


@pytest.mark.parametrize("inside", [False, True])
def test_files_that_stayed_go_on(folder, tmp_path, inside):
  output = folder if inside else tmp_path
  source = cut(folder, output, "root")
  (folder / ".cache").write_bytes(b"of a file browser")
  path = write(source, output)
  assert read_info(path).metadata["num_episodes"] == 7
  assert min(source.asked) == 2


def test_files_may_change_while_nothing_is_written(folder, tmp_path):
  sources = Numbers(damaged=(0,)), Numbers()
  for source in sources:
    source.root = folder
  with pytest.raises(ValueError, match="wrong checksum"):
    write(sources[0], tmp_path)
  touch(folder)
  assert read_info(write(sources[1], tmp_path)).metadata["num_episodes"] == 7


def test_files_that_are_given_come_first(folder, tmp_path):
  source = cut(folder, tmp_path)
  with pytest.raises(ValueError, match=r"b\.bin is gone"):
    write(source, tmp_path, inputs=[folder / "a.bin"])


def test_an_unfinished_conversion_of_unknown_files_goes_on(folder, tmp_path):
  with pytest.raises(Stopped):
    write(Numbers(), tmp_path, progress=stop_at(3))
  source = Numbers()
  source.files = [folder / "a.bin"]
  assert read_info(write(source, tmp_path)).metadata["num_episodes"] == 7
