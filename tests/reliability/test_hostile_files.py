"""Files that somebody made to do harm, or that a disk has damaged: one line, nothing written.

Each property is tried on a few examples, always the same. `FUZZ_EXAMPLES=20000 pytest <this file>`
tries as many new ones of each.
"""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from thanos.artifacts import MANIFEST, read_json, verify_manifest, write_json
from thanos.compression.folders import pack_folder, unpack_folder
from thanos.compression.packing import file_sizes, pack_file, unpack_file
from thanos.errors import UserError
from thanos.identity import Place, PruningSpec
from thanos.identity.spec import read_spec
from thanos.models.checkpoint import check_copied
from thanos.models.description import read_config
from thanos.models.location import listed_weight_files, mirrored_folder
from thanos.models.memory_plan import Work, plan_memory
from thanos.models.safetensors_layout import FLOAT_BYTES, read_header
from thanos.untrusted import inside

_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(_EXAMPLES or 40),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

BYTES = {**FLOAT_BYTES, "I64": 8, "I8": 1, "BOOL": 1, "F8_E4M3": 1}
NUMBERS = st.integers(-3, 70) | st.integers() | st.floats() | st.sampled_from([2**62, 2**64, 1e300])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["../out", "a/../../out", "/tmp/out", ".", "..", "", "a/..", "a\0b", "~", "ok", "a/b", "\ud800"]
) | st.text(max_size=6)


@contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def refused_in_one_line():
    """Nothing but the error for people may come out."""
    refused = ""
    try:
        yield
    except UserError as error:
        refused = str(error)
    assert refused.isprintable()
    assert len(refused) < 2000


def encoded(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@st.composite
def safetensors(draw):
    """A sound safetensors file with some zeros, in any order of its tensors."""
    header, data = {}, b""
    for name in draw(st.lists(st.text(max_size=5), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(list(BYTES)))
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        size = BYTES[dtype]
        for side in shape:
            size *= side
        content = draw(st.binary(min_size=size, max_size=size) | st.just(bytes(size)))
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + size],
        }
        data += content
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4)))
    return encoded(dict(draw(st.permutations(list(header.items())))), data)


@st.composite
def damaged(draw, whole):
    """A file with some bytes changed, put in, taken out, or with its end cut off."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["set", "insert", "remove", "cut", "repeat"])):
            case "set":
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                content[place:place] = draw(st.binary(max_size=4))
            case "remove":
                del content[place : place + draw(st.integers(1, 8))]
            case "cut":
                del content[place:]
            case "repeat":
                content[place:place] = content[place : place + draw(st.integers(1, 40))]
    return bytes(content)


@st.composite
def strange_headers(draw):
    """A header that is nearly one: any value in the place of any other."""
    part = st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), VALUES)
    sound = st.builds(
        lambda dtype, shape, begin, end: {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [begin, end],
        },
        st.sampled_from([*BYTES, "F4", "X"]),
        st.lists(NUMBERS, max_size=3),
        NUMBERS,
        NUMBERS,
    )
    keys = st.text(max_size=4) | st.just("__metadata__")
    header = draw(st.dictionaries(keys, sound | part | VALUES, max_size=4))
    return encoded(header, draw(st.binary(max_size=32)))


@fuzz
@given(safetensors() | damaged(safetensors()) | strange_headers() | st.binary(max_size=64))
def test_a_header_that_is_believed_describes_its_file(content):
    with folder() as here:
        (here / "f").write_bytes(content)
        with refused_in_one_line():
            header = read_header(here / "f")
            place = len(header.head)
            for tensor in header.tensors.values():
                assert tensor.start == place
                place += tensor.bytes
            assert place == len(content)
            if all(tensor.dtype in BYTES for tensor in header.tensors.values()):
                with safe_open(here / "f", "numpy") as known:
                    assert set(known.keys()) == header.tensors.keys()


@fuzz
@given(safetensors())
def test_what_the_library_reads_is_read_and_comes_back_from_packing(content):
    with folder() as here:
        (here / "f").write_bytes(content)
        with suppress(SafetensorError), safe_open(here / "f", "numpy"):
            read_header(here / "f")
        if b":values" in content or b":bitmask" in content:  # names that only packed files have
            return
        assert pack_file(here / "f", here / "packed") == file_sizes(here / "f")
        unpack_file(here / "packed", here / "restored")
        assert (here / "restored").read_bytes() == content


@st.composite
def packed_files(draw):
    with folder() as here:
        (here / "f").write_bytes(draw(safetensors()))
        with suppress(UserError):
            pack_file(here / "f", here / "packed")
            return (here / "packed").read_bytes()
    return b""


@st.composite
def strange_packed_files(draw):
    """A packed file whose inner header is of another file."""
    inner = draw(strange_headers() | safetensors())[8:].split(b"}}")[0] + b"}}"
    names = draw(st.lists(st.text(max_size=4), max_size=3, unique=True))
    header, begin = {}, 0
    for name in names:
        for suffix in (":values", ":bitmask", ""):
            size = draw(st.integers(0, 9))
            offsets = [begin, begin + size]
            header[name + suffix] = {"dtype": "U8", "shape": [size], "data_offsets": offsets}
            begin += size
    text = inner.decode(errors="replace")
    header["__metadata__"] = {"format": "thanos-packed", "version": "1", "header": text}
    return encoded(header, draw(st.binary(min_size=begin, max_size=begin)))


@fuzz
@given(damaged(packed_files()) | strange_packed_files())
def test_a_packed_file_never_becomes_larger_than_its_masks_say(content):
    with folder() as here:
        (here / "f").write_bytes(content)
        with refused_in_one_line():
            unpack_file(here / "f", here / "restored")
            # 64 bits for a bit of mask are the most.
            assert (here / "restored").stat().st_size <= 64 * len(content)


def packed_folder(here, checkpoint, files=None):
    """A folder whose manifest is sealed and true of its files, and asks for `checkpoint`."""
    source = here / "packed"
    source.mkdir()
    content = {"config.json": b"{}", "a/b": b"1"}
    for name, data in content.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(data)
    true = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
    }
    listed = true if files is None else files(true)
    write_json(
        source / MANIFEST,
        {"files": listed, "format": "thanos-packed", "version": "1", "checkpoint": checkpoint},
    )
    return source


def everything_in(path):
    return {file: file.is_file() and file.read_bytes() for file in path.rglob("*")}


@fuzz
@given(st.dictionaries(NAMES, st.just(hashlib.sha256(b"{}").hexdigest()) | VALUES) | VALUES)
def test_nothing_is_restored_outside_the_target(checkpoint):
    with folder() as here:
        (here / "out").write_text("mine")
        try:
            source = packed_folder(here, checkpoint)
        except (UserError, UnicodeEncodeError):  # no JSON file can hold that
            return
        before = everything_in(here)
        target = here / "deep" / "er"
        with refused_in_one_line():
            unpack_folder(source, target)
        added = everything_in(here).keys() - before.keys() - {target.parent, target}
        assert all(target in path.parents for path in added)
        assert {path: everything_in(here)[path] for path in before} == before


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/passwd", "packed/../../out"])
def test_a_listed_name_that_leads_out_is_refused_before_it_is_read(tmp_path, name):
    (tmp_path / "out").write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()

    def listed(files):
        return {**files, name: {"bytes": 2, "sha256": digest}}

    source = packed_folder(tmp_path, {name: digest}, listed)

    with pytest.raises(UserError, match=r"manifest\.json lists no files"):
        unpack_folder(source, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_file_that_no_manifest_lists_is_not_restored(tmp_path):
    source = packed_folder(tmp_path, {"added": hashlib.sha256(b"").hexdigest()})
    (source / "added").write_bytes(b"")

    with pytest.raises(UserError, match="packed lacks 'added'"):
        unpack_folder(source, tmp_path / "restored")


@fuzz
@given(st.dictionaries(st.sampled_from(["files", "checkpoint", "format"]), VALUES) | VALUES)
def test_any_manifest_is_checked_in_one_line(values):
    with folder() as here:
        try:
            write_json(here / MANIFEST, values if isinstance(values, dict) else {"files": values})
        except (UserError, UnicodeEncodeError):
            return
        with refused_in_one_line():
            verify_manifest(here, maker="rule x")


@fuzz
@given(VALUES.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=40))
def test_any_json_file_is_read_or_refused_in_one_line(content):
    with folder() as here:
        (here / "file").write_bytes(content)
        with refused_in_one_line():
            assert isinstance(read_json(here / "file"), dict)
        (here / "generation_config.json").write_bytes(content)
        with refused_in_one_line():
            check_copied(here)


@pytest.mark.parametrize("content", [b"[" * 10**5, b"9" * 5000, b'{"a": ' * 10**5, b"\xff"])
def test_json_that_breaks_readers_is_one_line(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "file")


@fuzz
@given(st.dictionaries(st.text(max_size=4), NAMES | VALUES) | VALUES)
def test_an_index_names_files_of_its_folder_only(weight_map):
    with folder() as here:
        text = json.dumps({"weight_map": weight_map})
        (here / "model.safetensors.index.json").write_text(text)
        with refused_in_one_line():
            assert all(file.parent == here for file in listed_weight_files(here))


CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "quantization_config": None,
    "num_experts_per_tok": None,
    "text_config": None,
    "dtype": "float16",
    "torch_dtype": "float16",
    "layer_types": None,
    "auto_map": None,
}
WEIGHT = {"model.layers.0.q.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}
WORK = Work(2, 8, 2, "gram", 1.0, 1, 4, 2**30)


@fuzz
@given(st.dictionaries(st.sampled_from([*CONFIG]), VALUES, max_size=2), st.booleans())
def test_any_configuration_is_opened_or_refused_in_one_line(changes, alone):
    with folder() as here:
        values = changes if alone else {**CONFIG, **changes}
        (here / "config.json").write_text(json.dumps(values))
        (here / "model.safetensors").write_bytes(encoded(WEIGHT, bytes(8)))
        with refused_in_one_line():
            assert plan_memory(here, WORK).host < 2**40
        with refused_in_one_line():
            read_config(here, trust_remote_code=False)


@fuzz
@given(VALUES.map(json.dumps) | st.text(max_size=20))
def test_any_argument_is_a_spec_or_a_place_or_one_line(text):
    with refused_in_one_line():
        read_spec(PruningSpec, text)
    with refused_in_one_line():
        assert isinstance(Place.parse(text), Place)


@fuzz
@given(NAMES, NAMES)
def test_names_of_models_stay_in_the_mirror(name, revision):
    with folder() as here, refused_in_one_line():
        found = mirrored_folder(here, name, revision)
        assert Path(os.path.normpath(found)).is_relative_to(here / "models")


def test_a_message_is_one_line_that_a_terminal_does_not_obey():
    assert str(UserError("in a\nb\x1b[2J: é\ud800")) == r"in a b\x1b[2J: é\ud800"


@pytest.mark.parametrize("name", [None, 3, "", ".", "..", "a/..", "/a", "../a", "a/../../b", "a\0"])
def test_a_name_that_leads_out_of_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match=r"is no file"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "..a", "a..", "...", ".bashrc", "ä b"])
def test_a_name_inside_a_folder(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


def test_packing_refuses_nothing_that_it_has_written(tmp_path):
    source = tmp_path / "source"
    (source / "..strange").mkdir(parents=True)
    (source / "..strange" / "a b").write_text("text")
    (source / "model.safetensors").write_bytes(encoded({}))

    pack_folder(source, tmp_path / "packed")
    unpack_folder(tmp_path / "packed", tmp_path / "restored")

    assert (tmp_path / "restored" / "..strange" / "a b").read_text() == "text"
