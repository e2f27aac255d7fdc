"""Speed and memory of reading images, beside torchvision's ImageFolder and DataLoader.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install -r requirements/benchmarks.txt
    python benchmarks/data.py speed --torch_python /tmp/torch/bin/python
    python benchmarks/data.py memory --torch_python /tmp/torch/bin/python
    python benchmarks/data.py index

`speed`: images per second from 2,000 JPEGs of 500x375 pixels, cut out of scikit-image's photographs, to batches of 64
at 128 pixels. Every reader has two workers. The readers take turns, and the fastest turn counts. `memory`: the resident
memory over ten epochs. `index`: the time and the memory for the names of 1,280,000 empty files on a tmpfs.
"""

import argparse
import dataclasses
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PHOTOS, CLASSES, WIDTH, HEIGHT, QUALITY = 2000, 10, 500, 375, 90
SIZE, BATCH, WORKERS = 128, 64, 2
WARM_UP, TIMED, TURNS = 6, 30, 4  # batches, batches, turns
EPOCHS = 10
FOLDERS, FILES = 1000, 1280  # of the index


def parameters(folder, **options):
    sys.path.insert(0, str(ROOT))
    import runtime  # noqa: F401, it sets the environment of a training
    from parameters import Parameters

    square = {"imsize": SIZE, "centercrop": True, "centercrop_size": SIZE, "batch_size": BATCH, "num_workers": WORKERS}
    return Parameters(dataset="folder", data_path=str(folder), **square | options)


def rate(batches):
    """Images per second of an endless iterator of batches, once it runs steadily."""
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(TIMED):
        next(batches)
    return TIMED * BATCH / (time.perf_counter() - start)


def our_rate(p):
    from dataset import batches, load_dataset

    with closing(batches(load_dataset(p), p, 0)) as data:
        return rate(data)


def packing_rate(folder, ending):
    """Images per second of pack.py, which writes the file `folder` + `ending`."""
    Path(f"{folder}{ending}").unlink(missing_ok=True)
    command = [sys.executable, ROOT / "pack.py", "--dataset", "folder", "--data_path", folder, "--centercrop"]
    command += ["--imsize", SIZE, "--num_workers", WORKERS, "--out", f"{folder}{ending}"]
    out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    return float(re.search(r"(\d+) a second", out)[1])


def rate_of_processes(p):
    """The same work by two processes instead of threads. They write the images into shared memory."""
    from dataset import load_dataset

    image_set = load_dataset(p)
    slots = 4
    shared = multiprocessing.RawArray("B", slots * BATCH * 3 * SIZE * SIZE)
    images = np.frombuffer(shared, np.uint8).reshape(slots, BATCH, 3, SIZE, SIZE)

    def read(job):
        slot, first, rows = job
        for place, row in enumerate(rows, first):
            images[slot, place] = image_set.training_image(row)[0]

    global work  # a worker finds it by its name
    work = read
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:

        def data():
            rng, ahead = np.random.default_rng(0), []
            while True:
                slot, rows = len(ahead) % slots, rng.permutation(len(image_set))[:BATCH]
                ahead.append(pool.map_async(_work, [(slot, k, rows[k : k + 8]) for k in range(0, BATCH, 8)], 1))
                if len(ahead) > 2:
                    ahead[-3].get()
                    yield images[(len(ahead) - 3) % slots].copy()

        return rate(data())


def _work(job):
    work(job)


def torch_rates(python, folder):
    """Yield the rate of each turn of torchvision. A line to its process starts a turn."""
    command = [python, __file__, "serve", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            while True:
                process.stdin.write("go\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"torchvision does not run in {python}")
                yield float(line)
        finally:
            process.kill()


def serve(folder):
    """Runs in torchvision's environment: for each line of input it does one turn and prints the rate."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets, transforms

    fit = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    images = datasets.ImageFolder(folder, transforms.Compose(fit))
    for _ in sys.stdin:
        order = RandomSampler(images, num_samples=2 * (WARM_UP + TIMED) * BATCH)
        print(rate(iter(DataLoader(images, BATCH, sampler=order, num_workers=WORKERS))), flush=True)


def photographs(folder):
    """Runs in torchvision's environment: writes the photographs into class folders."""
    from PIL import Image
    from skimage import data

    names = ("astronaut", "coffee", "rocket", "hubble_deep_field", "retina")
    sources = [
        np.asarray(image) for image in (*(getattr(data, name)() for name in names), *data.stereo_motorcycle()[:2])
    ]
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        source = sources[number % len(sources)]
        top, left = (rng.integers(side - cut + 1) for side, cut in zip(source.shape, (HEIGHT, WIDTH), strict=False))
        path = Path(folder, f"class{number % CLASSES}", f"{number:05}.jpg")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(source[top : top + HEIGHT, left : left + WIDTH, :3]).save(path, quality=QUALITY)


def speed(folder, python):
    p = parameters(folder)
    fast = dataclasses.replace(p, fast_decode=True)
    packed = {ending: dataclasses.replace(p, data_path=f"{folder}{ending}") for ending in (".npz", ".zip")}
    theirs = torch_rates(python, folder)
    readers = {
        "torchvision": lambda: next(theirs),
        "folder, exact pixels": lambda: our_rate(p),
        "the same, processes instead of threads": lambda: rate_of_processes(p),
        "folder, --fast_decode": lambda: our_rate(fast),
        "--fast_decode, processes": lambda: rate_of_processes(fast),
        "--fast_decode, --num_workers 1": lambda: our_rate(dataclasses.replace(fast, num_workers=1)),
        "packing, .npz": lambda: packing_rate(folder, ".npz"),
        "packing, .zip": lambda: packing_rate(folder, ".zip"),
        "packed .npz": lambda: our_rate(packed[".npz"]),
        "packed .npz, processes": lambda: rate_of_processes(packed[".npz"]),
        "packed .zip": lambda: our_rate(packed[".zip"]),
        "packed .zip, processes": lambda: rate_of_processes(packed[".zip"]),
    }
    rates = {name: [] for name in readers}
    for _ in range(TURNS):
        for name, reader in readers.items():
            rates[name].append(reader())
    for name, each in rates.items():
        turns = " ".join(f"{one:.0f}" for one in each)
        print(f"{name:40} {max(each):6.0f} images/s  {max(each) / max(rates['torchvision']):.2f}  turns: {turns}")


def memory(folder, _):
    p = parameters(folder, mirror=True)
    from dataset import batches, batches_per_epoch, load_dataset

    image_set = load_dataset(p)
    with closing(batches(image_set, p, 0)) as data:
        for epoch in range(EPOCHS):
            for _ in range(batches_per_epoch(image_set, p)):
                next(data)
            print(f"epoch {epoch + 1}: {resident():.1f} MB")


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def index():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for number in range(FOLDERS):
            inner = Path(folder, f"n{number:08}")
            inner.mkdir()
            for file in range(FILES):
                os.close(os.open(inner / f"n{number:08}_{file}.JPEG", os.O_CREAT))
            os.utime(inner, (1e9, 1e9))  # a folder that has just changed is not cached
        environment = os.environ | {"HOME": f"{folder}-home"}
        for what in ("first", "from the cache", "from the cache, two processes"):
            count = 1 + ("two" in what)
            command = [sys.executable, __file__, "list", folder]
            processes = [
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)
            ]
            for process in processes:
                print(f"{what}: {process.communicate()[0].strip()}", flush=True)
        shutil.rmtree(f"{folder}-home")


def list_names(folder):
    """Runs in a process of its own: opens the data set of empty files."""
    p = parameters(folder)
    from loading.image_sets import FolderSet

    before, start = resident(), time.perf_counter()
    image_set = FolderSet(p, "--data_path", folder)
    seconds = time.perf_counter() - start
    pages = Path("/proc/self/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in pages if line.startswith("Private"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(image_set)} files in {seconds:.2f} s; peak {peak / 1e3:.0f} MB, {private / 1e3:.0f} MB not shared, "
        f"{before:.0f} MB before"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("speed", "memory", "index"))
    parser.add_argument("--torch_python", help="the Python of an environment with torchvision and scikit-image")
    options = parser.parse_args()
    if options.what == "index":
        return index()
    with tempfile.TemporaryDirectory() as folder:
        photos = f"{folder}/photos"
        os.mkdir(photos)
        subprocess.run([options.torch_python, __file__, "photographs", photos], check=True)
        {"speed": speed, "memory": memory}[options.what](photos, options.torch_python)


if __name__ == "__main__":
    inner = {"serve": serve, "photographs": photographs, "list": list_names}
    if sys.argv[1:2] and sys.argv[1] in inner:
        inner[sys.argv[1]](sys.argv[2])
    else:
        main()
