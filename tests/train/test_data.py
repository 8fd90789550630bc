from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanline.errors import InputError, UsageError
from train import data, mnist


def test_uci_digits_are_real_digits_in_the_networks_form(uci: data.Dataset) -> None:
    assert uci.name == "uci"
    assert (uci.train_images.shape, uci.test_images.shape) == ((1437, 28, 28), (360, 28, 28))
    assert uci.train_images.dtype == uci.test_images.dtype == np.uint8
    assert uci.train_images.max() == 255
    margins = uci.train_images.copy()
    margins[:, 4:24, 4:24] = 0
    assert margins.max() == 0
    assert np.bincount(uci.test_labels).min() > 30
    assert uci.held_out.sum() == 1437 // 12
    assert uci.held_out[-119:].all()


def test_the_checksum_is_of_images_and_labels(uci: data.Dataset) -> None:
    content = uci.train_images.tobytes() + bytes(uci.train_labels.tolist())
    assert uci.sha256 == hashlib.sha256(content).hexdigest()
    content = uci.test_images.tobytes() + bytes(uci.test_labels.tolist())
    assert uci.test_sha256 == hashlib.sha256(content).hexdigest()


def test_sources_are_joined_in_order(uci: data.Dataset) -> None:
    both = data.load(["uci", "uci"], None)
    assert both.name == "uci+uci"
    assert len(both.train_labels) == 2 * 1437
    assert both.held_out.sum() == 2 * 119
    assert not both.held_out[-1437:-119].any()
    assert both.sha256 != uci.sha256


def test_mnist_is_read_from_its_folder(mnist_folder: Path) -> None:
    dataset = data.load(["mnist"], mnist_folder)
    assert (dataset.train_images.shape, dataset.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert np.bincount(dataset.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.held_out.sum() == 5000
    assert dataset.held_out[-5000:].all()


@pytest.mark.parametrize("spec", ["folder:.", "folder:0/..", "folder:../mine/"])
def test_a_folder_has_its_own_name_however_it_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    for digit in range(10):
        (tmp_path / "mine" / str(digit)).mkdir(parents=True)
        strokes = np.full((28, 28), 255, np.uint8)
        strokes[8:20, 12:16] = 0
        for number in range(6):  # one of each digit is for the test
            Image.fromarray(strokes).save(tmp_path / "mine" / str(digit) / f"{number}.png")
    monkeypatch.chdir(tmp_path / "mine")
    assert data.load([spec], None).name == "folder:mine"


@pytest.mark.parametrize("spec", ["cifar", "MNIST", "folder", "folder:", ""])
def test_an_unknown_source_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="takes mnist, uci or folder:PATH"):
        data.load([spec], None)


def test_a_folder_without_mnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz"):
        data.load(["mnist"], tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not the digits", "is not MNIST's"),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], "is damaged"),
        (b"\x1f\x8b\x08", "is damaged"),
    ],
)
def test_other_content_under_mnists_name_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        data.load(["mnist"], tmp_path)


# --- download: four small files stand for MNIST's, whose checksums are replaced by theirs


class _Mirror(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own name
        pass


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = {}
    for prefix, count in (("train", 24), ("t10k", 12)):
        contents[f"{prefix}-images-idx3-ubyte"] = bytes(16) + rng.integers(0, 256, count * 784, np.uint8).tobytes()
        contents[f"{prefix}-labels-idx1-ubyte"] = bytes(8) + bytes(index % 10 for index in range(count))
    for name, content in contents.items():
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())
    return contents


@pytest.fixture
def mirror(tmp_path: Path, small_mnist: dict[str, bytes]) -> Iterator[str]:
    folder = tmp_path / "mirror"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
    for name, content in small_mnist.items():
        (folder / "good" / f"{name}.gz").write_bytes(gzip.compress(content))
        (folder / "bad" / f"{name}.gz").write_bytes(gzip.compress(content + b"!"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Mirror, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_mnist_is_downloaded_into_the_cache(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: dict[str, bytes]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror}/absent", f"{mirror}/bad", f"{mirror}/good"))
    dataset = data.load(["mnist"], None)
    assert dataset.train_images.tobytes() == small_mnist["train-images-idx3-ubyte"][16:]
    assert dataset.test_labels.tolist() == [index % 10 for index in range(12)]

    monkeypatch.setattr(mnist, "MIRRORS", ())  # now it is there, no mirror is asked
    assert data.load(["mnist"], None).sha256 == dataset.sha256


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # as in a container that runs as any number
    with pytest.raises(UsageError, match=r"no home folder .* --data-dir"):
        data.load(["mnist"], None)


def test_a_failed_download_names_every_mirror_and_leaves_nothing(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data-dir.*absent/train-images.*404.*bad/train-images.*is not MNIST's"):
        mnist.fetch(tmp_path / "cache", (f"{mirror}/absent", f"{mirror}/bad"))
    assert list((tmp_path / "cache").iterdir()) == []


# --- one's own digits


@pytest.fixture
def own(tmp_path: Path, uci: data.Dataset) -> Path:
    """Twelve images of each digit, dark on light, as PNG files."""
    folder = tmp_path / "own"
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number, image in enumerate(uci.test_images[uci.test_labels == digit][:12]):
            Image.fromarray(255 - image).resize((56, 56)).save(folder / str(digit) / f"{number:02}.png")
    return folder


def test_a_folder_of_ones_own_digits(own: Path) -> None:
    dataset = data.load([f"folder:{own}"], None)
    assert dataset.name == "folder:own"
    assert np.bincount(dataset.train_labels).tolist() == [10] * 10
    assert np.bincount(dataset.test_labels).tolist() == [2] * 10
    assert len(np.unique(dataset.train_labels[dataset.held_out])) > 3  # not all of one digit
    assert dataset.train_images[:, :2].max() == 0  # light on black, in the middle
    assert dataset.train_images.max() > 200
    assert data.load([f"folder:{own}"], None).sha256 == dataset.sha256


def test_a_folder_may_hold_every_kind_of_image(own: Path) -> None:
    names = data.load([f"folder:{own}"], None).sha256
    for file in sorted((own / "3").glob("*.png")):
        Image.open(file).save(file.with_suffix(".BMP"))
        file.unlink()
    (own / "3" / "notes.txt").write_text("no image")
    assert data.load([f"folder:{own}"], None).sha256 == names


def test_a_folder_may_be_joined_to_other_data_and_then_lack_digits(own: Path) -> None:
    for file in (own / "7").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"folder:own has no training image of 7; .* `--data mnist`"):
        data.load([f"folder:{own}"], None)
    joined = data.load(["uci", f"folder:{own}"], None)
    assert joined.name == "uci+folder:own"
    assert len(joined.train_labels) == 1437 + 90


def test_a_test_needs_six_images_of_a_digit_in_a_folder(own: Path, tmp_path: Path) -> None:
    for file in own.glob("*/*.png"):
        if int(file.stem) >= 5:
            file.unlink()
    specs = [f"folder:{own}", f"folder:{shutil.copytree(own, tmp_path / 'other')}"]
    with pytest.raises(InputError, match=r"folder:own\+folder:other leaves no image for the test: .* `--data mnist`"):
        data.load(specs, None)
    assert len(data.load([*specs, "uci"], None).test_labels) == 360
    shutil.copy(own / "7" / "00.png", own / "7" / "05.png")
    assert data.load(specs, None).test_labels.tolist() == [7]


def test_a_validation_split_needs_twelve_images_of_a_source(own: Path, tmp_path: Path) -> None:
    specs = []
    for digit in range(10):  # a folder for each digit, with nothing in it but ten of twelve images
        specs.append(f"folder:{tmp_path / f'only-{digit}'}")
        shutil.copytree(own / str(digit), tmp_path / f"only-{digit}" / str(digit))
    with pytest.raises(InputError, match=r"leaves no image to be held out: .* twelfth .* `--data mnist`"):
        data.load(specs, None)


def test_unreadable_images_are_counted_and_named(own: Path) -> None:
    (own / "3" / "00.png").write_bytes(b"not a picture")
    (own / "4" / "01.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 120 images in .*own can't be used.*3/00\.png.*4/01\.png"):
        data.load([f"folder:{own}"], None)


def test_images_that_would_be_left_out_are_named(own: Path) -> None:
    for digit, suffix in enumerate((".gif", ".HEIC", ".heif", ".avif")):
        (own / str(digit) / "00.png").rename(own / str(digit) / f"00{suffix}")
    one, two = (Image.open(own / "5" / f"0{number}.png") for number in range(2))
    one.save(own / "5" / "00.tif", save_all=True, append_images=[two])
    (own / "6" / "._00.gif").write_bytes(b"what a Mac puts beside 00.gif")
    expected = r"5 of 121 .*0/00\.gif: GIF can't be read; expected PNG.*1/00\.HEIC: HEIC.*3/00\.avif: AVIF.*"
    with pytest.raises(InputError, match=expected + r"5/00\.tif: the TIFF file has several pages"):
        data.load([f"folder:{own}"], None)


def test_blank_images_are_named_beside_the_unreadable_ones(own: Path) -> None:
    Image.new("L", (56, 56), 255).save(own / "3" / "00.png")
    (own / "4" / "01.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 120 images in .*own can't be used.*3/00\.png: it is blank.*4/01\.png"):
        data.load([f"folder:{own}"], None)


def test_a_folder_of_another_layout_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        data.load([f"folder:{tmp_path / 'nowhere'}"], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"there is no image; .*empty/0 to .*empty/9 should hold PNG, JPEG"):
        data.load([f"folder:{tmp_path / 'empty'}"], None)
    (own / "12").mkdir()
    (own / "eight").mkdir()
    with pytest.raises(UsageError, match="should be named 0 to 9, not 12, eight"):
        data.load([f"folder:{own}"], None)


def test_a_folder_among_a_digit_s_images_is_refused(own: Path) -> None:
    (own / ".git").mkdir()
    (own / "3" / ".ipynb_checkpoints").mkdir()  # what programs keep there is nobody's digits
    assert len(data.load([f"folder:{own}"], None).train_labels) == 100
    (own / "3" / "more").mkdir()
    with pytest.raises(UsageError, match=r"3/more is a folder; images are looked for in .*own/3 itself"):
        data.load([f"folder:{own}"], None)
