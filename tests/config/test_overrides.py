"""Overrides mean what Hydra says they mean, text is what was typed, all else is refused by name."""

import dataclasses

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from thanos.config import axis, resolve
from thanos.config.checks import named
from thanos.config.grammar import parsed, split_overrides, typed, written
from thanos.errors import UserError
from thanos.paths import CONF

HF = ("model=hf", "model.path=x")

# What Hydra documents of its grammar: ours is `hydra.compose`'s.
SAME = [
    (),
    # options of groups, values, types
    ("method=wanda",),
    ("method='wanda'",),
    ("method=dense", "tracking=disabled"),
    ("model=[doc-opt,doc-llama]",),
    ("calibration.windows=8",),
    ("calibration.windows=1_000",),
    ("outlier_fraction=0.1",),
    ("outlier_fraction=1e-1",),
    ("outlier_fraction=.25",),
    ("outlier_fraction=0",),
    ("layer_errors=false",),
    ("layer_errors=FALSE",),
    ("layer_errors=no",),
    ("layer_errors=0",),
    ("memory_budget=null",),
    ("memory_budget=NULL",),
    ("calibration.path=null",),
    ("method.label=",),
    ("seed=1", "seed=2"),
    # add, force, delete
    ("++calibration.windows=8",),
    ("++pattern=2:4",),
    ("++mirror=m",),
    ("~tracking",),
    ("~tracking=offline",),
    ("+model={context:64}",),
    # quotes, escapes, whitespace
    ("method.label='a-b'",),
    ('method.label="a-b"',),
    ("mirror='a b'",),
    ("mirror=a b",),
    ("mirror=a\\ b",),
    ("mirror=a\\,b",),
    ("mirror='it\\'s'",),
    ('mirror="it\'s"',),
    ("mirror='a\\\\'",),
    ("mirror='null'",),
    ("mirror='true'",),
    ("mirror='0123'",),
    ("mirror='[a,b]'",),
    ("mirror='a=b'",),
    ("mirror=C:\\d",),
    ("mirror=/a/b-c.d+e%f@g?h|i*$",),
    ("pattern=2:4",),
    ("pattern=unstructured:0.5",),
    ("pattern= 2:4 ",),
    # lists and dictionaries
    ("model.skip=[a,b]",),
    ("model.skip=['a,b',c]",),
    ("model.skip=[]",),
    ("evaluation.tasks=[piqa, boolq]",),
    ("evaluation.corpora=[c4]", "evaluation.tasks=[]"),
    ("model={path:x,context:32}",),
    ("method={damping:0.1,block_size:8}",),
    ("calibration={path: 'a b'}", "calibration.windows=3"),
    # interpolation
    ("output_dir=out/${method.name}",),
    ("output_dir=out/${method.name}", "method=wanda"),
    ("output_dir=${model.name}-${seed}", "seed=7"),
    ("method.label=${model.name}",),
    ("calibration.windows=${evaluation.max_windows}",),
    ("output_dir='${method.name} ü'",),
    ("mirror=${oc.env:HOME}",),
    ("mirror=${oc.env:NOWHERE_AT_ALL,there}",),
    ("mirror=\\${not.one}",),
    ("outlier_fraction=${oc.decode:'0.25'}",),
    # functions
    ("pattern=str(0.5)",),
    ("seed=int(3.7)",),
    ("layer_errors=bool(0)",),
    ("outlier_fraction=float(0)",),
    ("model.skip=sort([b,a])",),
    # group@package
    ("~tracking", "+tracking@tracking=online"),
]

# Refused, by Hydra as well or only here, in one line that names the override, its key or the group.
REFUSED = [
    (
        ("pattern=0.5,2:4",),
        "override 'pattern=0.5,2:4' has several values; sweep over them with -m",
    ),
    (("seed=1,2",), "override 'seed=1,2' has several values"),
    (("seed=range(0,3)",), r"override 'seed=range\(0,3\)' has several values"),
    (("method=glob(*)",), r"override 'method=glob\(\*\)' has several values"),
    (("pattern=choice(0.5,2:4)",), "override .* has several values"),
    (("outlier_fraction=interval(0,1)",), "override .* has several values"),
    (("+calibration.windows=8",), "already at 'calibration.windows'"),
    (("+colour=red",), "unknown key 'colour'"),
    (("++colour=red",), "unknown key 'colour'"),
    (("+model.colour=red",), "unknown key 'model.colour'"),
    (("model={colour:red}",), "unknown key 'model.colour'"),
    (("colour=red",), "unknown key 'colour'"),
    (("method.dampening=1",), "unknown key 'method.dampening'.*did you mean method.damping"),
    (("model.path.x=1",), "model.path"),
    (("++method=wanda",), r"override '\+\+method=wanda'"),
    (("+method=wanda",), "method"),
    (("method=obs",), "unknown method 'obs'; known: admm, admm-refined, dense"),
    (("model=[doc-opt,gpt-7]",), "unknown model 'gpt-7'"),
    (("method=null",), "unknown method None"),
    (("method={name:[a]}",), r"method '\[a\]'"),
    (("model@model=doc-opt",), "unknown key 'model@model'"),
    (("+model@model=doc-opt",), "Multiple values for model"),
    (("model@other=doc-opt",), "model@other"),
    (("+model@other=doc-opt",), "other"),
    (("+model@calibration=doc-opt",), "'model/doc-opt': .*'context' not in 'CalibrationConfig'"),
    (("~pattern",), "override '~pattern': a key cannot be removed"),
    (("~calibration.windows",), "override '~calibration.windows': a key cannot be removed"),
    (("~colour",), "'colour' does not exist"),
    (("~tracking=online",), "tracking=online"),
    (("~method",), "key 'method.name' must be given"),
    (("~model",), "key 'model.path' must be given"),
    (("model=hf",), "key 'model.path' must be given"),
    (("model.path=???",), "key 'model.path' must be given"),
    (("hydra.run.dir=x",), "key 'hydra.run.dir' is Hydra's own"),
    (("hydra/launcher=basic",), "key 'hydra/launcher' is Hydra's own"),
    (("+hydra.job.name=x",), "key 'hydra.job.name' is Hydra's own"),
    (("output_dir=${method.nme}",), "output_dir: Interpolation key 'method.nme' not found"),
    (("mirror=${oc.env:NOWHERE_AT_ALL}",), "mirror: .*NOWHERE_AT_ALL"),
    (("output_dir=${hydra:job.name}",), "output_dir: .*HydraConfig was not set"),
    (("mirror=a${b",), "mirror: "),
    (("seed=${method.name}",), "seed: .*Value 'thanos' of type 'str'"),
    (("seed=first",), "seed: Value 'first'"),
    (("seed=",), "seed: Value ''"),
    (("seed=a=b",), "override 'seed=a=b' cannot be read"),
    (("seed=(1",), r"override 'seed=\(1' cannot be read"),
    (("seed=1 2",), "seed: Value '1 2'"),
    (("evaluation.tasks=piqa",), "evaluation.tasks: .*list"),
    (("pattern=null",), "'pattern' is not Optional"),
    (("wanda",), "override 'wanda' has no value; expected key=value"),
    (("=wanda",), "unknown key '' .from '=wanda'"),
]

# Text as typed, where Hydra reads a number, a switch, a list or nothing at all.
TEXTS = [
    *("0123", "1e5", "12345e6", "1_000", "0x10", "1.10", "yes", "off", "true", "False", "~", "inf"),
    *("nan", "2024-01-01", "[old]", "{a: b}", "a=b", "a(b", "a)b", "a#b", "a #b", "o'brien", 'a"b'),
    *("'tis", "it's 'so'", "naïve/Ü", "模型", "a;b", "a&b", "a!b", "a<b>c", "a^b", "a`b", "~/x(1)"),
    *("a, b", "é,è=1", "100% (new) = 'good' #1", "a\\b'c", "ends with \\", "sort(", "tabs\there"),
]


def hydra_says(overrides, folder=None):
    resolve([])  # has stored the schema
    search = [f"hydra.searchpath=['file://{folder}']"] if folder else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*search, *overrides]
        return named(OmegaConf.to_object(compose("config", list(overrides))))


def test_there_are_enough():
    assert len(SAME) + len(REFUSED) >= 60


@pytest.mark.parametrize("overrides", SAME, ids=" ".join)
def test_an_override_means_what_hydra_composes(overrides):
    assert dataclasses.asdict(resolve(overrides)) == dataclasses.asdict(hydra_says(overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    REFUSED,
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_refused_is_named_in_one_line(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text):
    assert resolve(["model=hf", f"model.path={text}"]).model.path == text
    assert resolve([*HF, f"mirror={text}"]).mirror == text
    assert resolve([*HF, written("mirror", text)]).mirror == text
    if "," not in text:
        assert resolve([*HF, f"model.revision={text}"]).model.revision == text
        assert (
            resolve([*HF, f"model={{path: x, revision: '{text}'}}"]).model if "'" not in text else 1
        )
        assert axis(f"model.revision={text}") == ("model.revision", [text])


def test_text_stays_text_inside_lists_dictionaries_and_sweeps():
    assert resolve(["model.skip=[1e5, 0123, yes, o'brien]"]).model.skip == [
        *("1e5", "0123", "yes", "o'brien"),
    ]
    model = resolve(["model={path: x, revision: 1e5}"]).model
    assert (model.path, model.revision) == ("x", "1e5")
    assert axis("model.revision=1e5,0123,a#b") == ("model.revision", ["1e5", "0123", "a#b"])
    assert axis("model.revision=choice(1e5,'a,b')") == ("model.revision", ["1e5", "a,b"])
    assert axis("model.path=/a,b") == ("model.path", ["/a,b"])
    assert axis("model.path=choice(/a,/b)") == ("model.path", ["/a", "/b"])
    assert axis("pattern=0.5,2:4,1:2") == ("pattern", ["0.5", "2:4", "1:2"])
    assert axis("evaluation.tasks=[piqa],[boolq,1e5]")[1] == ["[piqa]", "[boolq,'1e5']"]
    assert axis("seed=range(0,3)") == ("seed", ["0", "1", "2"])
    assert axis("method=glob(th*)") == ("method", ["thanos", "thanos-plus", "thanos-refined"])
    assert axis("+method.damping=0.1,1") == ("+method.damping", ["0.1", "1"])


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_can_be_written(text):
    assert parsed(written("mirror", text)).value() == text
    assert not parsed(written("method.label", text)).is_sweep_override()


@pytest.fixture
def folder(tmp_path):
    """A user's own options, which use Hydra's means: defaults, packages, interpolation."""
    folder = tmp_path / "my conf, ü"
    for name, text in {
        "model/mine": "name: mine\npath: some/where\n",
        "method/damped": "defaults: [thanos]\nlabel: damped-${seed}\ndamping: 0.5\n",
        "method/small": "# @package _global_\nmethod: {name: wanda}\npattern: '4:8'\nseed: 3\n",
    }.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mine",),
        ("method=damped", "seed=7"),
        ("method=damped", "method.damping=0.1"),
        ("method=small",),
        ("method=small", "seed=1", "model=mine"),
        ("method=small", "tracking=disabled"),
        ("method=damped", "method.damping=${outlier_fraction}", "outlier_fraction=0.25"),
    ],
    ids=" ".join,
)
def test_a_folder_of_ones_own(folder, overrides):
    expected = hydra_says(overrides, folder)
    assert dataclasses.asdict(resolve(overrides, (str(folder),))) == dataclasses.asdict(expected)


def test_a_folder_of_ones_own_adds_and_does_not_replace(folder, tmp_path):
    with pytest.raises(UserError, match="unknown model 'mine'"):
        resolve(["model=mine"])
    with pytest.raises(UserError, match=r"known: .*doc-opt.*mine"):
        resolve(["model=other"], (str(folder),))
    (folder / "method" / "wanda.yaml").write_text("name: thanos\n")
    with pytest.raises(UserError, match=r"wanda.yaml: .*conf has a method/wanda already"):
        resolve([], (str(folder), "."))
    with pytest.raises(UserError, match=r"--config-dir .*nowhere does not exist"):
        resolve([], (str(tmp_path / "nowhere"),))
    (folder / "method" / "wanda.yaml").write_text("name: thanos\n")
    (folder / "method" / "typo.yaml").write_text("name: thanos\nblocksize: 3\n")
    (folder / "method" / "wanda.yaml").unlink()
    with pytest.raises(UserError, match=r"'method/typo': .*'blocksize' not in 'MethodConfig'"):
        resolve(["method=typo"], (str(folder),))


def test_text_stays_text_in_the_files_of_a_folder(folder):
    (folder / "model" / "odd.yaml").write_text(
        "path: 0123\nrevision: 12345e6\ncontext: 1_0\nskip: [1e5, yes, 2:4]\n"
    )
    (folder / "method" / "odd.yaml").write_text(
        "# @package _global_\npattern: 2:4\nseed: 3\nmethod: {name: wanda, label: 1.10}\n"
    )
    (folder / "model" / "broken.yaml").write_text("path: [\n")
    config = resolve(["model=odd", "method=odd"], (str(folder),))
    assert (config.model.path, config.model.revision) == ("0123", "12345e6")
    assert (config.model.context, config.model.skip) == (10, ["1e5", "yes", "2:4"])
    assert (config.pattern, config.seed, config.method.label) == ("2:4", 3, "1.10")
    with pytest.raises(UserError, match=r"broken\.yaml is no YAML") as caught:
        resolve(["model=broken"], (str(folder),))
    assert "\n" not in str(caught.value)


def test_text_that_is_no_text_of_ours_is_left_alone():
    for override in ("seed=1e5", "layer_errors=yes", "unknown=1e5", "~tracking", "pattern"):
        assert typed(override) == override


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("", []),
        ("model=a  method=b\n seed=1", ["model=a", "method=b", "seed=1"]),
        ("model.path=/my models/x method=wanda", ["model.path=/my models/x", "method=wanda"]),
        ("model.path=/o'brien method=wanda", ["model.path=/o'brien", "method=wanda"]),
        ("model.path='/a b' seed=1", ["model.path='/a b'", "seed=1"]),
        ("'model.path=/a b' seed=1", ["model.path=/a b", "seed=1"]),
        ('"model.path=/a b" "seed=1"', ["model.path=/a b", "seed=1"]),
        ("mirror=/a b=c/d seed=1", ["mirror=/a b=c/d", "seed=1"]),
        ("model=a metod=b", ["model=a", "metod=b"]),
        ("~tracking ++seed=1 +x=2", ["~tracking", "++seed=1", "+x=2"]),
        ("seed=1 ~tracking", ["seed=1", "~tracking"]),
        ("mirror=/a,b (c) #1 pattern=0.5,2:4", ["mirror=/a,b (c) #1", "pattern=0.5,2:4"]),
        ("method.label='x=1 y=2' seed=0", ["method.label='x=1 y=2'", "seed=0"]),
    ],
)
def test_a_line_of_overrides(line, overrides):
    assert split_overrides(line) == overrides
