"""The page of pictures of a run or a checkpoint, as one HTML file that needs no network."""

import sys
from functools import cached_property
from pathlib import Path

import jinja2
import markupsafe
import numpy as np

import checkpoint
import sampler
from checkpoint import compare_classes
from dataset import load_dataset
from drawing.classes import choose_labels
from drawing.generator import OpenGenerator, load_generator
from evaluation import report
from loading.image_sets import are_imagenets
from pages import attention, records
from pages.curves import chart
from pages.embedded import LARGEST, SMALL, image_uri, picture_uri
from pages.neighbours import find_neighbours
from pages.settings import run_options
from pages.words import title, words
from utils import UserError, progress

CLASSES = 10  # that are shown
REAL, SEEDS = 4, 8  # images of each class: real ones, and samples
WALKS, FRAMES = 4, 8  # interpolations; their images
BOUNDS = (0.1, 0.5, 1.0, 1.5, 2.0, 4.0)  # of the noise, in the truncation sweep
MOMENTS = 6  # checkpoints of the attention over training
STAGES = 6  # frames of the film in a print


def gallery_page(parameters, loaded, labels, language):
    """The page of the `Checkpoint` `loaded`, as HTML text in `language`, one of `words.LANGUAGES`.

    `labels` chooses the classes, as `--labels`; at most CLASSES of them are shown. Raises UserError for unknown ones. A
    section that cannot be made says why. Sections that do not apply are missing.
    """
    gallery = _Gallery(parameters, loaded, labels, language)
    page = {}
    names = (
        "grid", "film", "within", "between", "truncation", "neighbours", "attention", "attention_over", "curves",
        "reports", "settings",
    )  # fmt: skip
    for name in progress(names, title="sections of the page", unit="section"):
        page[name] = getattr(gallery, name)()
    page |= gallery.header() | {"sections": [name for name in names if page[name]]}
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=folder, autoescape=True).get_template("gallery.html")
    return template.render(page=page, w=words(language))


class _Gallery:
    """Makes the sections of a page: dictionaries for the template. None: the section does not apply."""

    def __init__(self, parameters, loaded, labels, language):
        self.parameters, self.loaded, self.language = parameters, loaded, language
        self.words = words(language)
        self.run = checkpoint.run_of(loaded.path)
        self.generator = OpenGenerator(parameters, loaded)
        self.names = loaded.class_names or self._names_of_data() or self.generator.class_names
        chosen = choose_labels(labels, self.names)
        places = np.linspace(0, len(chosen) - 1, min(CLASSES, len(chosen))).astype(int)
        self.chosen, self.labels = chosen, [chosen[place] for place in places]

    @cached_property
    def _training_images(self):
        """(the training images or None, the reason if there are none)."""
        try:
            images = load_dataset(self.parameters)
        except UserError as error:
            return None, str(error)
        if self.loaded.class_names and (difference := compare_classes(self.loaded.class_names, images.class_names)):
            return None, self.words["other_classes"].format(difference=difference)
        return images, None

    @cached_property
    def _test_images(self):
        """The test images, or None."""
        p = self.parameters
        if p.reads_folders and not p.test_data_path:
            return None
        try:
            return load_dataset(p, "test")
        except UserError:
            return None

    def _left_out(self, name, reason):
        """The section `name`, which cannot be made. Prints the reason."""
        print(f"the page leaves out “{self.words[name]}”: {reason}", file=sys.stderr)
        return {"missing": reason}

    def _names_of_data(self):
        images, _ = self._training_images
        return images.class_names if images else ()

    def header(self):
        p, name, step = self.parameters, self.run.name, self.loaded.step
        dataset = p.dataset
        if dataset == "imagenet" and not are_imagenets(self.loaded.class_names):
            dataset = "folder"  # --data_path alone means --dataset imagenet, whatever the images are
        facts = [self.words["facts"].format(classes=p.num_classes, size=p.imsize, dataset=dataset)]
        if self.generator.part == "G_ema":
            facts.append(self.words["average"])
        self.generator.say_caution()
        if self.generator.caution:
            facts.append(self.words["unsettled"])
        return {
            "title": self.words["trained"].format(model=p.recipe, step=step) if step else p.recipe,
            "source": name if self.loaded.path.parent == self.run else f"{name} ({self.loaded.path.name})",
            "facts": " · ".join(facts),
            "tile": min(p.imsize, LARGEST) * max(1, SMALL // p.imsize),
            "wide": max(attention.SHOWN, 128),
            "pixelated": p.imsize <= SMALL,
        }

    def grid(self):
        seeds = np.arange(SEEDS)
        drawn = self._by_row(self.generator.grid(self.labels, seeds), len(self.labels))
        images, reason = self._training_images
        rows = []
        for label, row in zip(self.labels, drawn, strict=True):
            real = [image_uri(images[int(place)][0]) for place in self._places_of(label)[:REAL]] if images else []
            rows.append({"name": self.names[label], "real": real, "drawn": list(zip(seeds, row, strict=True))})
        some = {"shown": len(self.labels), "all": len(self.chosen)}
        return {"rows": rows, "no_real": reason, "some": some if some["shown"] < some["all"] else None}

    def _places_of(self, label):
        return np.flatnonzero(self._training_images[0].labels == label)

    def film(self):
        frames = records.film(self.run / self.parameters.sample_images_dir)
        stages = np.linspace(0, len(frames) - 1, STAGES).round()
        shown = [
            {"step": step, "image": picture_uri(picture), "stage": number in stages}
            for number, (step, picture) in enumerate(frames)
        ]
        return {"frames": shown} if shown else None

    def within(self):
        rows = []
        for number, label in enumerate(self.labels[:WALKS]):
            seeds = [2 * number, 2 * number + 1]
            frames = [frame[0] for frame in self.generator.walk_between_seeds(seeds, [label], FRAMES)]
            name = f"{self.names[label]}, {self.words['seeds'].format(first=seeds[0], last=seeds[1])}"
            rows.append({"name": name, "images": list(map(image_uri, frames))})
        return {"rows": rows}

    def between(self):
        if len(self.labels) < 2:
            return self._left_out("between", self.words["one_class"])
        stops = self.labels[: WALKS + 1]
        count = (len(stops) - 1) * (FRAMES - 1) + 1  # neighbouring rows share a frame: the class between them
        frames = [frame[0] for frame in self.generator.walk_between_classes(stops, [0], count)]
        rows = []
        for number in range(len(stops) - 1):
            start, end = (self.names[label] for label in stops[number : number + 2])
            first = number * (FRAMES - 1)
            rows.append({"name": f"{start} → {end}", "images": list(map(image_uri, frames[first : first + FRAMES]))})
        return {"rows": rows}

    def truncation(self):
        labels = np.resize(self.labels, SEEDS)
        rows = [
            {
                "name": f"± {bound:g}",
                "images": list(map(image_uri, self.generator.draw(labels, np.arange(SEEDS), bound))),
            }
            for bound in BOUNDS
        ]
        return {"rows": rows}

    def neighbours(self):
        p = self.parameters
        network = self.words["classifier" if p.by_classifier else "inception"]
        images, reason = self._training_images
        if not images:
            return self._left_out("neighbours", reason)
        seed = SEEDS
        samples = self.generator.grid(self.labels, [seed])
        try:
            found = find_neighbours(p, samples, self.labels, self._draw_others, images, self._test_images)
        except UserError as error:
            return self._left_out("neighbours", str(error))
        rows = []
        for label, sample, places, distances in zip(self.labels, samples, found.places, found.distances, strict=True):
            near = [
                (f"{distance:.2f}", images.class_names[images.labels[place]], image_uri(images[int(place)][0]))
                for place, distance in zip(places, distances, strict=True)
            ]
            rows.append({"name": self.names[label], "sample": image_uri(sample), "seed": seed, "found": near})
        return {
            "rows": rows,
            "searched": "searched_all" if found.searched == found.total else "searched_some",
            "numbers": {"network": network, "searched": found.searched, "total": found.total},
            "medians": found.medians and {
                name: f"{median:.2f}" for name, median in zip(("samples", "tests"), found.medians, strict=True)
            },
        }  # fmt: skip

    def _draw_others(self, labels):
        """Samples of `labels` with seeds that the page does not show."""
        return self.generator.draw(labels, 1000 + np.arange(len(labels)))

    def attention(self):
        if not attention.has_attention(self.generator.network):
            return None
        labels, seeds = self.labels[:WALKS], np.arange(min(WALKS, len(self.labels)))
        images, maps = self._attended(self.generator.network, labels, seeds)
        rows = []
        for label, seed, image, own in zip(labels, seeds, images, maps, strict=True):
            name = f"{self.names[label]}, {self.words['seed'].format(seed=seed)}"
            rows.append({"name": name, "images": self._attention_row(image, own)})
        return {"rows": rows, "numbers": {"side": maps.shape[1]}}

    def attention_over(self):
        paths = checkpoint.step_files(self.run / self.parameters.model_weights_dir)
        if not attention.has_attention(self.generator.network) or len(paths) < 2:
            return None
        places = np.unique(np.linspace(0, len(paths) - 1, MOMENTS).round().astype(int))
        rows = []
        for path in (paths[place] for place in places):
            try:
                loaded = checkpoint.load(path, wanted=("G", "G_ema"))
                generator, _ = load_generator(self.parameters, loaded)
            except UserError:
                continue  # it is damaged, or has just been removed
            if self.parameters.standing_batches:
                sampler.use_standing_statistics(generator, self.parameters)
            images, maps = self._attended(generator, self.labels[:1], [0])
            gate = generator.attention.gamma.item()
            name = f"{self.words['step'].format(step=loaded.step)}, γ = {gate:.3f}"
            rows.append({"name": name, "images": self._attention_row(images[0], maps[0])})
        return {"rows": rows}

    def _attended(self, network, labels, seeds):
        """(images uint8 [N, C, H, W], maps) of `attention_maps` for classes `labels` and `seeds`."""
        noise = sampler.noises(self.parameters, seeds)
        images, maps = attention.attention_maps(network, noise, labels)
        return sampler.to_pixels(images, self.parameters), maps

    def _attention_row(self, image, maps):
        shown = zip(attention.POINTS, attention.COLOURS, strict=True)
        overlays = [attention.overlay(image, attention.map_of(maps, point), point, colour) for point, colour in shown]
        return [image_uri(picture) for picture in (attention.with_points(image), *overlays)]

    def curves(self):
        charts = [
            {"name": title(report.title(name) or name, self.language), "picture": markupsafe.Markup(chart(lines))}
            for name, lines in records.curves(self.run)
        ]
        return {"charts": charts} if charts else None

    def reports(self):
        found = records.reports(self.run, self.parameters.recipe)
        for one in found:
            one["table"] = [(title(name, self.language), *figures) for name, *figures in one["table"]]
        return {"found": found} if found else None

    def settings(self):
        recipe, changed, every = run_options(self.loaded.parameters, self.loaded.path)
        return {"changed": changed, "all": every, "numbers": {"recipe": recipe}}

    def _by_row(self, images, count):
        """The URIs of `images` in `count` rows."""
        uris = list(map(image_uri, images))
        size = len(uris) // count
        return [uris[start : start + size] for start in range(0, len(uris), size)]
