import gc
import json
import tracemalloc

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ilx.data.convert import cells, checks, events, lines, tables
from ilx.data.convert.mapping import Events, Field

RECORDS = [
  {"t": 0.0, "pad": {"stick": [0.5, -1.0], "jump": True}, "item": "sword"},
  {"t": 0.25, "pad": {"stick": [0.0, 0.25], "jump": False}, "item": "bow"},
  {"t": 1.5, "pad": {"stick": [1.0, 0.0], "jump": True}, "item": "sword"},
]
FORMATS = ["jsonl", "json", "csv", "tsv", "parquet", "avro", "yaml", "xml"]


def write_events(path, records=RECORDS):
  """The records in the format that the file's name says."""
  kind = path.suffix[1:]
  flat = [
    {"t": r["t"], "pad.stick": json.dumps(r["pad"]["stick"]), "pad.jump": r["pad"]["jump"], "item": r["item"]}
    for r in records
  ]
  if kind == "jsonl":
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
  elif kind == "json":
    path.write_text(json.dumps(records))
  elif kind in ("csv", "tsv"):
    sep = "," if kind == "csv" else "\t"
    rows = [sep.join(flat[0])] + [
      sep.join('"' + str(v).replace('"', '""') + '"' if "," in str(v) else str(v) for v in r.values()) for r in flat
    ]
    path.write_text("\r\n".join(rows) + "\r\n")
  elif kind == "parquet":
    pq.write_table(pa.Table.from_pylist(records), path)
  elif kind == "avro":
    pad = [{"name": "stick", "type": {"type": "array", "items": "double"}}, {"name": "jump", "type": "boolean"}]
    fields = [
      {"name": "t", "type": "double"},
      {"name": "pad", "type": {"type": "record", "name": "Pad", "fields": pad}},
      {"name": "item", "type": "string"},
    ]
    with path.open("wb") as file:
      fastavro.writer(file, {"type": "record", "name": "Event", "fields": fields}, records)
  elif kind == "yaml":
    path.write_text(yaml.safe_dump(records))
  else:
    rows = [
      f'<event t="{r["t"]}" item="{r["item"]}"><pad jump="{str(r["pad"]["jump"]).lower()}">'
      + "".join(f"<stick>{x}</stick>" for x in r["pad"]["stick"])
      + "</pad></event>"
      for r in records
    ]
    path.write_text("<?xml version='1.0'?>\n<log>\n" + "\n".join(rows) + "\n</log>\n")
  return path


STICK = Field(column="pad.stick")
JUMP = Field(column="pad.jump", kind="button")
ITEM = Field(column="item", kind="category", vocabulary=("bow", "sword"))
NAME = Field(column="item", kind="text")


def read(path, fields, **about):
  return tables.read([path], Events(path="x", **about), fields)[None]


def write(path, text):
  path.write_text(text)
  return path


@pytest.mark.parametrize("kind", FORMATS)
def test_all_formats_give_the_same_columns(tmp_path, kind):
  path = write_events(tmp_path / f"events.{kind}")
  table = read(path, [STICK, JUMP, ITEM, NAME], time="t", offset=0.5)
  assert table.count == 3
  assert table.times.tolist() == [0.5, 0.75, 2.0]
  assert table.columns[STICK].values.tolist() == [[0.5, -1.0], [0.0, 0.25], [1.0, 0.0]]
  assert table.columns[JUMP].values.tolist() == [1.0, 0.0, 1.0]
  assert table.columns[ITEM].values.tolist() == [1, 0, 1]
  assert table.columns[NAME].values.tolist() == ["sword", "bow", "sword"]
  assert table.columns[STICK].rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_can_be_named_whatever_the_file_is_called(tmp_path, kind):
  path = write_events(tmp_path / f"events.{kind}").rename(tmp_path / "events.log")
  assert len(list(events.records(path, kind))) == 3
  with pytest.raises(ValueError, match=r"events\.log: format unknown"):
    list(events.records(path))


DAMAGED = {
  "jsonl": ('{"t": 0}\n{"t": \n', "line 2: no JSON"),
  "json": ('[{"t": 0},', "no JSON"),
  "csv": ("t,x\n0,1\n1\n", "line 3: 1 values where there are 2 columns"),
  "tsv": ("t\tt\n0\t1\n", "line 1: two columns of one name"),
  "parquet": ("PAR1....PAR1", "no Parquet file that can be read"),
  "avro": ("Obj\x01", "record 1: no Avro that can be read"),
  "yaml": ("- {t: 0}\n- {t: ]\n", "no YAML that can be read: .* line 2"),
  "xml": ("<log><event t='0'/><event t='1'></log>", "record 2: no XML that can be read: mismatched tag"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_name_the_record(tmp_path, kind):
  text, message = DAMAGED[kind]
  path = write(tmp_path / f"events.{kind}", text)
  with pytest.raises(ValueError, match=rf"events\.{kind}.*{message}"):
    list(events.records(path))
  whole = write_events(tmp_path / f"whole.{kind}").read_bytes()
  path.write_bytes(whole[: len(whole) * 2 // 3])
  if kind in ("json", "parquet", "avro", "xml"):  # the others may end there
    with pytest.raises(ValueError, match=rf"events\.{kind}"):
      read(path, [STICK, JUMP, ITEM])
  with pytest.raises(FileNotFoundError, match=r"none\.jsonl is missing"):
    list(events.records(tmp_path / "none.jsonl"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
  path = tmp_path / "events.jsonl"
  path.write_bytes(b'{"t": 0}\n{"t": "\xff"}\n')
  with pytest.raises(ValueError, match="line 2: no JSON: 'utf-8' codec"):
    list(events.records(path))
  path = tmp_path / "events.csv"
  path.write_bytes(b"t\n0\n\xff\n")
  with pytest.raises(ValueError, match=r"events\.csv: is not written in utf-8 .*; set 'encoding', such as utf-16"):
    list(events.records(path))


CSV = "t;ü\n0;1,5\n1;2\n"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8"])
def test_csv_of_other_delimiters_and_encodings(tmp_path, encoding):
  path = tmp_path / "events.csv"
  path.write_bytes(CSV.encode(encoding))
  with pytest.raises(ValueError, match=r"set '(encoding|delimiter)'"):
    list(events.records(path))
  expected = [("line 2", {"t": "0", "ü": "1,5"}), ("line 3", {"t": "1", "ü": "2"})]
  assert list(events.records(path, encoding=encoding, delimiter=";")) == expected
  about = {"delimiter": ";", "encoding": encoding, "time": "t"}
  assert read(path, [Field(column="t")], **about).times.tolist() == [0, 1]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"t;a\n0;1\n", r"events\.csv: the first line has one column 't;a', not separated by ','; set 'delimiter' to ';'"),
    (b"t\ta\n0\t1\n", r"set 'delimiter' to '\\t'"),
    (b"0,1.5\n1,-2e-3\n", r"events\.csv: the first line, '0,1\.5', has numbers alone; the columns' names"),
    ("t,a\n0,1\n".encode("utf-16-le"), r"events\.csv: the first line has zero bytes; set 'encoding'"),
  ],
)
def test_csv_that_is_another_says_what_to_do(tmp_path, content, message):
  path = tmp_path / "events.csv"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    list(events.records(path))


def test_columns_may_be_counted(tmp_path):
  path = write(tmp_path / "events.csv", "0,1\n5,6\n")
  assert list(events.records(path)) == [("line 2", {"0": "5", "1": "6"})]


def test_delimiters_are_for_csv(tmp_path):
  path = write(tmp_path / "events.jsonl", "{}\n")
  with pytest.raises(ValueError, match=r"events\.jsonl: 'delimiter' and 'encoding' are for CSV and TSV, not for jsonl"):
    list(events.records(path, delimiter=";"))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_files_without_end_are_not_read_as_one_line(tmp_path, kind, monkeypatch):
  monkeypatch.setattr(lines, "_LONGEST", 1 << 20)
  path = tmp_path / f"events.{kind}"
  with path.open("wb") as file:
    file.write(b"" if kind == "json" else b"{}\n")
    file.truncate(20 << 30)
  tracemalloc.start()
  with pytest.raises(ValueError, match=r"line 2: is longer than 1 MiB|is larger than 1024 MiB, .* write JSON lines"):
    list(events.records(path))
  assert tracemalloc.get_traced_memory()[1] < 32 << 20
  tracemalloc.stop()


def test_yaml_that_merges_again_and_again_is_refused(tmp_path):
  levels = "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
  path = write(tmp_path / "events.yaml", "a0: &a0 {x: 1}\n" + levels)
  with pytest.raises(ValueError, match=r"events\.yaml: no YAML that can be read: merging by '<<' is not read"):
    list(events.records(path))
  path = write(tmp_path / "events.yaml", "- &a {x: 1, =: 2}\n- *a\n")
  assert list(events.records(path)) == [("record 1", {"x": 1, "=": 2}), ("record 2", {"x": 1, "=": 2})]


def test_numbers_beyond_all_measure_are_refused(tmp_path):
  path = write(tmp_path / "events.jsonl", '{"t": 1' + "0" * 400 + "}\n")
  with pytest.raises(ValueError, match=r"events\.jsonl, line 1: column 't' is 10+\.\.\.0+, no time in 's'"):
    read(path, [], time="t")


def test_lines_may_be_empty_and_begin_with_a_mark(tmp_path):
  path = tmp_path / "events.jsonl"
  path.write_bytes(b'\xef\xbb\xbf{"t": 0}\n\n{"t": 1}')
  assert list(events.records(path)) == [("line 1", {"t": 0}), ("line 3", {"t": 1})]
  path = tmp_path / "events.csv"
  path.write_bytes(b'\xef\xbb\xbft, say\r\n\r\n0,"a\nb"\r\n')
  assert list(events.records(path)) == [("line 4", {"t": "0", "say": "a\nb"})]


def test_records_are_objects(tmp_path):
  with pytest.raises(ValueError, match=r"events\.jsonl, line 1: is \[1, 2\]; expected an object"):
    list(events.records(write(tmp_path / "events.jsonl", "[1, 2]\n")))


def test_records_within_a_document_are_found_by_their_path(tmp_path):
  document = {"session": {"id": 3, "events": [{"t": 0}, {"t": 1}]}}
  expected = [("record 1", {"t": 0}), ("record 2", {"t": 1})]
  path = write(tmp_path / "a.json", json.dumps(document))
  assert list(events.records(path, at="session.events")) == expected
  assert list(events.records(write(tmp_path / "a.yaml", yaml.safe_dump(document)), at="session/events")) == expected
  with pytest.raises(ValueError, match=r"a\.json: has no list at 'session.event' of records"):
    list(events.records(path, at="session.event"))
  with pytest.raises(ValueError, match=r"a\.json: is no list of records; say where it is in 'records'"):
    list(events.records(path))
  path = write(
    tmp_path / "a.xml", "<a><meta><e t='9'/></meta><run><e t='0'/><x/><e t='1'>hi</e></run><run><e/></run></a>"
  )
  found = [record for _, record in events.records(path, at="a/run/e")]
  assert found == [{"@t": "0"}, {"@t": "1", "#text": "hi"}, {"#text": ""}]
  with pytest.raises(ValueError, match=r"a\.xml: no elements at 'a/runs/e'"):
    list(events.records(path, at="a/runs/e"))
  with pytest.raises(ValueError, match=r"a\.csv: 'records' says where they are in JSON, YAML and XML"):
    list(events.records(write(tmp_path / "a.csv", "t\n0\n"), at="x"))


def test_yaml_documents_are_records(tmp_path):
  path = write(tmp_path / "a.yaml", "t: 0\n---\nt: 1\n---\n- t: 2\n- t: 3\n---\n")
  assert [record["t"] for _, record in events.records(path)] == [0, 1, 2, 3]


def test_yaml_tags_are_refused(tmp_path):
  marker = tmp_path / "made"
  path = write(tmp_path / "a.yaml", f"- t: !!python/object/apply:os.mkdir ['{marker}']\n")
  with pytest.raises(ValueError, match=r"a\.yaml: no YAML that can be read: could not determine a constructor"):
    list(events.records(path))
  assert not marker.exists()


def test_yaml_bombs_cost_nothing(tmp_path):
  lines = ["- a0: &a0 [x, x]"] + [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
  path = write(tmp_path / "a.yaml", "\n".join(lines) + "\n  t: 1\n")
  with pytest.raises(ValueError, match=r"'a29' is .* expected a number"):
    read(path, [Field(column="a29")])


@pytest.mark.parametrize(
  "text",
  [
    "<!DOCTYPE a [<!ENTITY b 'x'><!ENTITY c '&b;&b;&b;&b;'>]><a><e t='&c;'/></a>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a><e>&b;</e></a>",
    "<!DOCTYPE a SYSTEM 'http://example.com/a.dtd'><a><e/></a>",
  ],
)
def test_xml_bombs_are_refused(tmp_path, text):
  with pytest.raises(ValueError, match=r"a\.xml, record 1: no XML that can be read: (DTD|Entities)Forbidden"):
    list(events.records(write(tmp_path / "a.xml", text)))


def test_deeply_nested_files_are_refused(tmp_path):
  deep = 50_000
  for name, text in (
    ("a.jsonl", '{"a":' * deep),
    ("a.json", "[" * deep),
    ("a.xml", "<a>" * deep + "</a>" * deep),
    ("a.yaml", "[" * 5_000),
  ):
    with pytest.raises(ValueError, match=rf"{name}"):
      list(events.records(write(tmp_path / name, text)))


def test_xml_does_not_gather_what_was_read(tmp_path):
  path = write(tmp_path / "a.xml", "<a>" + "<x><y/></x><e t='1'/>" * 20_000 + "</a>")
  roots = []
  for count, _ in enumerate(events.records(path, at="a/e")):
    if count == 10_000:
      roots = [o for o in gc.get_objects() if type(o).__name__ == "Element" and o.tag == "a"]
      assert len(roots[0]) < 2000  # what was read ahead
  assert roots


def test_values_are_looked_up_by_paths():
  record = {"a": {"b": [{"c": 5}, 6]}, "a.b": 7, "@id": "x", "e": {"#text": "t", "@k": "v"}}
  assert events.lookup(record, "a.b") == 7
  assert events.lookup(record, "a/b.0.c") == 5
  assert events.lookup(record, "a/b/1") == 6
  assert events.lookup(record, "id") == events.lookup(record, "@id") == "x"
  assert events.lookup(record, "e") == "t"
  assert events.lookup(record, "e/k") == "v"
  for absent in ("a/b/2", "a/b/x", "q", "id/x", "a.b.c"):
    assert events.lookup(record, absent) is events.ABSENT


def number(field, value):
  return cells.reader(field)({"x": value})[0]


def test_buttons_are_pressed_by_the_usual_words_or_by_those_given():
  plain = Field(column="x", kind="button")
  assert [number(plain, v) for v in (True, 1, 0.5, "down", "Yes", "true", "1")] == [1.0] * 7
  assert [number(plain, v) for v in (False, 0, "up", "off", "false", "0")] == [0.0] * 6
  with pytest.raises(ValueError, match="column 'x' is 'KEYDOWN'; say in 'pressed' which values"):
    number(plain, "KEYDOWN")
  flags = cells.reader(Field(column="x", kind="button", pressed=(True,)))
  assert [flags({"x": x})[0] for x in (True, False, "TRUE", "false", 1, 0)] == [1, 0, 1, 0, 1, 0]
  with pytest.raises(ValueError, match=r"'pressed' has true, as YAML reads on and yes too; .*: \"yes\""):
    flags({"x": "yes"})
  mixed = cells.reader(Field(column="x", kind="button", pressed=(True, "down")))
  assert [mixed({"x": x})[0] for x in ("down", "up", True)] == [1, 0, 1]
  given = Field(column="x", kind="button", pressed=("KEYDOWN", "2"))
  assert [number(given, v) for v in ("KEYDOWN", 2, "KEYUP", 1)] == [1.0, 1.0, 0.0, 0.0]
  keys = Field(column="x", kind="button", vocabulary=("w", "a", "1"))
  assert number(keys, ["a", "q", 1]) == [0.0, 1.0, 1.0]
  assert number(keys, "w+a") == number(keys, "w, a") == [1.0, 1.0, 0.0]
  assert number(keys, []) == number(keys, "") == [0.0, 0.0, 0.0]
  with pytest.raises(ValueError, match="give a 'vocabulary'"):
    number(plain, ["w"])


def test_numbers_are_numbers():
  field = Field(column="x")
  assert [number(field, v) for v in (1, "2.5", True, [1, 2], "[3, 4.5]")] == [1, 2.5, 1, [1, 2], [3, 4.5]]
  assert number(field, float("nan")) is number(field, None) is number(field, "") is number(field, [1, None]) is None
  for bad in ("x", {"a": 1}, [], [[1]], float("inf"), 10**400, "[1, 2", b"1"):
    with pytest.raises(ValueError, match="column 'x' is"):
      number(field, bad)
  category = Field(column="x", kind="category", vocabulary=("left", "right"))
  with pytest.raises(ValueError, match=r"column 'x' is 'rihgt'; not in the vocabulary \(did you mean 'right'\?\)"):
    number(category, "rihgt")


def test_missing_values_are_errors_or_what_the_mapping_says(tmp_path):
  lines = ['{"x": [1, 2]}', '{"x": null}', '{"y": 1}', '{"x": [NaN, 1]}', '{"x": [3, 4]}']
  path = write(tmp_path / "a.jsonl", "\n".join(lines))
  with pytest.raises(ValueError, match=r"a\.jsonl, line 2: column x has no value; set 'missing'"):
    read(path, [Field(column="x")])
  forward, zero = Field(column="x", missing="forward"), Field(column="x", missing=0.0)
  table = read(path, [forward, zero])
  assert table.columns[forward].rows.tolist() == [0, 4]
  assert table.columns[forward].values.tolist() == [[1, 2], [3, 4]]
  assert table.columns[zero].values.tolist() == [[1, 2], [0, 0], [0, 0], [0, 0], [3, 4]]
  path = write(tmp_path / "a.jsonl", '{"stick": 1}\n{"stikc": 1}\n')
  with pytest.raises(ValueError, match=r"line 2: no column 'stick' \(did you mean 'stikc'\?\); there are stikc"):
    read(path, [Field(column="stick")])
  # A name that no record has is an error whatever is said of missing values.
  with pytest.raises(ValueError, match=r"a\.jsonl: no record has the column 'stck' \(did you mean"):
    read(path, [Field(column="stck", missing="forward")])


def test_vectors_keep_their_length(tmp_path):
  path = write(tmp_path / "a.jsonl", '{"x": [1, 2]}\n{"x": [1]}\n')
  with pytest.raises(ValueError, match="line 2: column 'x' has 1 values, before it had 2"):
    read(path, [Field(column="x")])
  path = write(tmp_path / "b.jsonl", '{"x": 1, "y": 2}\n{"x": 3, "y": 4}\n')
  field = Field(columns=("y", "x"))
  assert read(path, [field]).columns[field].values.tolist() == [[2, 1], [4, 3]]


def test_the_clock_may_not_run_backwards(tmp_path):
  path = write(tmp_path / "a.csv", "t,x\n0,1\n2,1\n1.5,1\n")
  with pytest.raises(ValueError, match=r"a\.csv, line 4: the clock runs backwards: 1.5 s after 2.0 s"):
    read(path, [Field(column="x")], time="t")
  with pytest.raises(ValueError, match=r"a\.csv, line 2: no column 'time' with its time; there are t, x"):
    read(path, [Field(column="x")], time="time")


@pytest.mark.parametrize(
  ("unit", "values", "expected"),
  [
    ("s", [1.5, 2], [1.5, 2.0]),
    ("ms", ["1500", 2000], [1.5, 2.0]),
    ("us", [1500000, 2e6], [1.5, 2.0]),
    ("ns", [1_500_000_000, 2_000_000_000], [1.5, 2.0]),
    ("iso", ["1970-01-01T00:00:01.5Z", "1970-01-01T01:00:02+01:00"], [1.5, 2.0]),
    ("iso", ["1970-01-01 00:00:01.5", "1970-01-01T00:00:02"], [1.5, 2.0]),
  ],
)
def test_times_have_units(tmp_path, unit, values, expected):
  path = write(tmp_path / "a.jsonl", "".join(json.dumps({"t": v}) + "\n" for v in values))
  assert read(path, [], time="t", unit=unit).times.tolist() == expected
  assert read(path, [], time="t", unit=unit, relative=True, offset=9.0).times.tolist() == [9.0, 9.5]
  assert read(path, [], time="t", unit=unit, rate=0.5, offset=9.0).times.tolist() == [12.0, 13.0]
  assert read(path, [], time="t", unit=unit, relative=True, rate=2.0, offset=9.0).times.tolist() == [9.0, 9.25]


@pytest.mark.parametrize(("unit", "value"), [("s", "now"), ("iso", 3), ("s", True), ("s", "inf"), ("iso", "yesterday")])
def test_times_that_are_none_are_refused(tmp_path, unit, value):
  path = write(tmp_path / "a.jsonl", json.dumps({"t": value}))
  with pytest.raises(ValueError, match=r"line 1: column 't' is .*, no time"):
    read(path, [], time="t", unit=unit)


def test_times_of_parquet_and_avro_are_understood(tmp_path):
  micro = pa.array([1_500_000, 2_000_000], pa.timestamp("us"))
  pq.write_table(pa.table({"t": micro}), tmp_path / "a.parquet")
  assert read(tmp_path / "a.parquet", [], time="t").times.tolist() == [1.5, 2.0]
  schema = {
    "type": "record",
    "name": "E",
    "fields": [{"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
  }
  with (tmp_path / "a.avro").open("wb") as file:
    fastavro.writer(file, schema, [{"t": 1500}, {"t": 2000}])
  assert read(tmp_path / "a.avro", [], time="t").times.tolist() == [1.5, 2.0]


def test_records_are_chosen_by_their_values(tmp_path):
  rows = ["t,key,state", "0,w,down", "0,a,down", "1,w,up", "2,mouse,", "3,a,up"]
  path = write(tmp_path / "a.csv", "\n".join(rows))
  w = Field(column="state", kind="button", where=(("key", ("w",)),))
  both = Field(column="state", kind="button", where=(("key", ("w", "a")),))
  table = read(path, [w, both], time="t", where=(("key", ("w", "a")),))
  assert table.count == 4
  assert table.columns[w].rows.tolist() == [0, 2]
  assert table.columns[w].values.tolist() == [1.0, 0.0]
  assert table.columns[both].values.tolist() == [1.0, 1.0, 0.0, 0.0]


def fitting(path, where):
  """The numbers of a table's records that a ``where`` chooses."""
  field = Field(column="x", where=checks.pairs(where, "where"))
  return read(path, [field]).columns[field].rows.tolist()


def test_spaces_around_values_are_no_part_of_them(tmp_path):
  path = write(tmp_path / "a.csv", "x, type , name\n0, key, w \n1, key, \n2,pad,w\n")
  assert fitting(path, {"type": "key"}) == [0, 1]
  assert fitting(path, {"type": ["key", "pad"], "name": "w"}) == [0, 2]
  assert fitting(path, {"type": "key", "name": " "}) == [1]


def test_true_and_false_choose_booleans(tmp_path):
  path = write(
    tmp_path / "a.jsonl", '{"x": 0, "down": true}\n{"x": 1, "down": false}\n{"x": 2}\n{"x": 3, "down": null}\n'
  )
  assert fitting(path, {"down": True}) == fitting(path, {"down": "true"}) == [0]
  assert fitting(path, {"down": [False]}) == fitting(path, {"down": "false"}) == [1]
  path = write(tmp_path / "a.csv", "x,down\n0,true\n1,True\n2,FALSE\n3,\n")
  assert fitting(path, {"down": True}) == [0, 1]
  assert fitting(path, {"down": [True, False]}) == [0, 1, 2]
  path = write(tmp_path / "b.csv", "x,down\n0,1\n1,0\n")
  assert (fitting(path, {"down": True}), fitting(path, {"down": False})) == ([0], [1])


@pytest.mark.parametrize(
  ("value", "message"), [(True, r"true, as YAML reads on and yes.*\"on\""), (False, r"false, .*\"off\"")]
)
@pytest.mark.parametrize("name", ["on", "jump", 2])
def test_true_and_false_choose_no_texts(tmp_path, value, name, message):
  path = write(tmp_path / "a.jsonl", json.dumps({"x": 0, "name": name}) + "\n")
  with pytest.raises(ValueError, match=rf"a\.jsonl, line 1: column 'name' is {name!r}, but 'where' has {message}"):
    fitting(path, {"name": value})
  with pytest.raises(ValueError, match=r"a\.jsonl, line 1: column 'name' is"):
    read(path, [], where=checks.pairs({"name": value}, "where"))
  assert fitting(path, {"name": ["on", "jump", 2]}) == [0]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_columns_that_no_header_names_are_refused(tmp_path, kind):
  path = write(tmp_path / f"a.{kind}", "t,type,dx\n0,mouse,1\n1,key,\n".replace(",", "," if kind == "csv" else "\t"))
  mouse = {"where": (("type", ("mouse",)),)}
  message = rf"a\.{kind}: no column {{}} \(did you mean {{}}\?\); there are t, type, dx"
  with pytest.raises(ValueError, match=message.format("'typ'", "'type'")):
    read(path, [Field(column="dx", where=(("typ", ("mouse",)),), align="sum")])
  with pytest.raises(ValueError, match=message.format("'typ'", "'type'")):
    read(path, [Field(column="dx", missing=0.0)], where=(("typ", ("mouse",)),))
  with pytest.raises(ValueError, match=message.format("'ddx'", "'dx'")):  # no record concerns the field
    read(path, [Field(column="ddx", where=(("type", ("stick",)),))])
  assert read(path, [Field(column="dx", **mouse)]).count == 2
  # Of several files one has it.
  other = write(tmp_path / f"b.{kind}", "stick\n5\n")
  stick = Field(column="stick", missing="forward")
  assert tables.read([path, other], Events(path="x"), [stick])[None].columns[stick].rows.tolist() == [2]


def test_records_of_json_need_not_have_all_columns(tmp_path):
  path = write(tmp_path / "a.jsonl", '{"x": 1}\n')
  assert fitting(path, {"type": "key"}) == []


def test_a_table_of_many_episodes_is_taken_apart(tmp_path):
  path = write(tmp_path / "a.csv", "run,t,x\n7,0,1\nb,0,2\n7,1,3\n")
  field = Field(column="x")
  found = tables.read([path], Events(path="x", episode="run", time="t"), [field])
  assert {name: table.columns[field].values.tolist() for name, table in found.items()} == {"7": [1, 3], "b": [2]}
  with pytest.raises(ValueError, match=r"a\.csv, line 2: no column 'runs' that names the episode"):
    tables.read([path], Events(path="x", episode="runs"), [field])


def test_parquet_reads_the_wanted_columns_alone(tmp_path):
  pq.write_table(pa.table({"t": [0.0], "big": [b"x"], "pad": [{"x": 1}]}), tmp_path / "a.parquet")
  found = list(events.records(tmp_path / "a.parquet", columns=["t", "pad.x"]))
  assert found == [("row 1", {"t": 0.0, "pad": {"x": 1}})]
  assert np.isclose(read(tmp_path / "a.parquet", [Field(column="pad.x")], time="t").times[0], 0)
