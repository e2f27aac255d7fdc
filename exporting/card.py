"""The model card: README.md of an exported folder, in the format of the model hubs (YAML above, Markdown below)."""

import yaml

import checkpoint
from evaluation import report
from evaluation.report import escaped
from loading.image_sets import are_imagenets
from utils import file_digest, plural

# {data set without a record: (the licence in the hubs' words, a sentence on the data)}.
DATA = {
    "imagenet": (
        "other",
        "ImageNet, or images in its layout. ImageNet's terms (https://image-net.org/download) allow research that is "
        "not commercial.",
    ),
    "fake": ("other", "Random colours, which only test the program."),
}
UNKNOWN = ("other", "Not known here: before you publish, name the images, their source and their licence.")
PAPERS = {
    "sagan": "Zhang, Goodfellow, Metaxas, Odena, *Self-Attention Generative Adversarial Networks*, ICML 2019, "
    "https://arxiv.org/abs/1805.08318",
    "acgan": "Odena, Olah, Shlens, *Conditional Image Synthesis with Auxiliary Classifier GANs*, ICML 2017, "
    "https://arxiv.org/abs/1610.09585",
    "reacgan": "Kang, Shim, Cho, Park, *Rebooting ACGAN: Auxiliary Classifier GANs with Stable Training*, "
    "NeurIPS 2021, https://arxiv.org/abs/2111.01118",
}


def model_card(generator, loaded, has_onnx):
    """The text of the card of an `OpenGenerator` of the `Checkpoint` `loaded`.

    Its title is the name that `--name` gave to the run, or else the recipe.
    """
    p = generator.parameters
    name = loaded.parameters.get("name") or p.recipe
    family = "sagan" if p.is_sagan else "acgan"
    licence, data = DATA.get(p.dataset, UNKNOWN)
    if p.dataset == "imagenet" and not are_imagenets(loaded.class_names):
        licence, data = UNKNOWN  # --data_path alone means --dataset imagenet, whatever the images are
    if p.published_data:
        licence, data = p.published_data.licence, p.published_data.source
    head = {
        "license": licence,
        "library_name": "paddlepaddle",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "class-conditional", family, "image-generation", *(["onnx"] if has_onnx else [])],
    }
    steps = f", after {plural(loaded.step, 'step')}" if loaded.step else ""
    normed = "[0, 1]" if p.dont_normalize else "[-1, 1]"
    examples = ["python example_paddle.py   # needs paddlepaddle alone; writes grid.png"]
    if has_onnx:
        examples.append("python example_onnx.py     # needs onnxruntime alone; writes grid.png")
    average = "The weights are a moving average over the training." if generator.part == "G_ema" else ""
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {escaped(str(name))}",
        "",
        f"A class-conditional GAN's generator ({family.upper()}): images of {p.imsize}x{p.imsize} pixels and "
        f"{plural(p.channels, 'channel')}, of {_classes(generator.class_names)}.",
        "",
        f"- Architecture: {PAPERS[family]}",
        *([f"- Class loss: {PAPERS['reacgan']}"] if p.class_loss == "d2d_ce" else []),
        f"- Recipe: `{p.recipe}`{steps}. {average}".rstrip(),
        f"- Inputs: `z` float32 [N, {p.z_dim}] from N(0, 1), `labels` int64 [N] from 0 to {p.num_classes - 1}",
        f"- Output: `images` float32 [N, {p.channels}, {p.imsize}, {p.imsize}] in {normed}",
        "",
        "## Use",
        "",
        "```bash",
        *examples,
        "```",
        "",
        "`config.json` has the sizes and the names of the classes. `model.safetensors` has the weights for the project "
        "that trained them, `pytorch.safetensors` has them with the names and shapes of the reference network in "
        "PyTorch.",
        "",
        "## Training data and licence",
        "",
        data,
        "The licence above is that of the data. The project's code has the licence Apache 2.0.",
        "",
        "## Scores",
        "",
        *_scores(loaded.path),
        "",
        "## Intended use and limits",
        "",
        "For research, teaching and demonstrations. The generator draws only images like those of its training data, "
        "and only of these classes. A sample can show the wrong class or no object, and it can resemble a training "
        "image. The generator repeats the biases of its data. Its images are not facts and not portraits.",
    ]
    return "\n".join(lines) + "\n"


def _classes(names):
    """The names of the classes in words; of more than 12, their number and the first three."""
    shown = ", ".join(map(escaped, names if len(names) <= 12 else names[:3]))
    return f"{len(names)} classes ({shown}{', …' * (len(names) > 12)})"


def _scores(path):
    """Lines on the newest report of test.py on the checkpoint `path`, in any folder of its run."""
    digest = file_digest(path)
    files = [file for file in checkpoint.run_of(path).glob("*/report.json") if file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        figures, settings = report.read(file) or ({}, {})
        table = [f"| {title} | {text} |" for title, text, _ in report.rows(figures)]
        # A report that somebody has changed may hold anything.
        count = settings.get("num_samples")
        if table and settings.get("sha256") == digest and isinstance(count, int):
            return ["| figure | |", "|---|---|", *table, "", f"Measured by `test.py` on {count:,} samples."]
    return ["Not measured. Run `test.py` on the weights and export again. Then this section has the figures."]
