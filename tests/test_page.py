"""The page of a network: what is in it, and that it works in a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from image_sources import write
from PIL import Image

import keras_alexnet
from keras_alexnet.images.decoding import decode
from keras_alexnet.inspect import page
from keras_alexnet.training.config import TrainConfig

# What a folder may be called.
HOSTILE = "<script>alert(1)<!-- & \"'"
# Uses every control, and notes what it finds where the browser's dump has it.
EXERCISE = """<script>
const problems = [];
window.addEventListener("error", (event) => problems.push(event.message));
const check = (good, what) => good || problems.push(what);
const set = (id, value, kind = "input") => {
  document.querySelector(id).value = value;
  document.querySelector(id).dispatchEvent(new Event(kind));
};
const shown = () => document.querySelectorAll("#found figure").length;
check(document.documentElement.dataset.ready === "yes", "not ready");
const all = shown();
set("#which", "wrong"); const wrong = shown();
set("#which", "right"); check(wrong + shown() === all && wrong, "right and wrong");
set("#which", ""); set("#of", "0"); check(shown() < all && shown(), "class");
set("#of", ""); set("#least", "99"); check(shown() < all, "confidence");
set("#least", "0"); set("#order", "-1"); check(shown() === all, "order");
document.querySelectorAll("#confusion button").forEach((button) => {
  button.click();
  check(document.querySelectorAll("#cell img").length, "no images of a cell");
});
document.querySelectorAll("#chooser button").forEach((button) => {
  button.click();
  check(button.getAttribute("aria-pressed") === "true", "not chosen");
  check(document.querySelectorAll("#activations img").length > 20, "activations");
});
document.querySelector("#found button").click();
set("#strength", "20");
check(document.querySelector(".overlay img + img").style.opacity === "0.2", "strength");
const points = () => document.querySelectorAll("#curves circle").length;
const whole = points();
set("#from", "2", "change"); check(points() < whole, "zoom");
document.querySelector("#log").click();
document.querySelector("#whole").click(); check(points() >= whole - 4, "whole run");
const panel = document.querySelector("#curves svg");
const box = panel.getBoundingClientRect();
const drag = (kind, part) => panel.dispatchEvent(new PointerEvent(kind,
  {clientX: box.left + part * box.width, pointerId: 1}));
panel.setPointerCapture = () => {};
drag("pointerdown", 0.6); drag("pointerup", 0.9); check(points() < whole, "drag");
check([...document.images].every((one) => one.hasAttribute("alt")), "alt");
document.body.dataset.found = JSON.stringify(problems);
</script>"""


class Parser(html.parser.HTMLParser):
    """The elements of a page, and the text in those scripts that hold data."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.data, self._inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = ("id", "data") in attributes

    def handle_data(self, data):
        self.data += data if self._inside else ""

    def handle_endtag(self, tag):
        self._inside = False


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run of a tiny network, of two classes of noise that it cannot tell apart."""
    path = tmp_path_factory.mktemp("page")
    for number in range(40):
        name = ("cat", HOSTILE.replace("/", ""))[number % 2]
        write(path / "photos" / name / f"{number}.png", seed=number)
    config = TrainConfig(
        **{"recipe": "digits", "data": f"folder:{path / 'photos'}", "epochs": 3},
        **{"global_batch_size": 8, "width": 0.25, "test_fraction": 0.4, "channels": 3},
    )
    keras_alexnet.train(config, path / "run")
    return path / "run"


def written(path):
    text = path.read_text(encoding="utf-8")
    parsed = Parser(text)
    return text, parsed.elements, json.loads(parsed.data)


def test_the_page_of_a_run_holds_all_and_loads_nothing(run, tmp_path, command):
    robustness = tmp_path / "robust.json"
    robustness.write_text('[{"attack": "pgd", "accuracy": NaN}]', encoding="utf-8")
    out = tmp_path / "page.html"
    code, printed, _ = command(
        *("report", run, "--out", out, "--explain", 4, "--robustness", robustness)
    )
    assert code == 0 and "Left out" not in printed
    text, elements, data = written(out)
    assert out.stat().st_size < 10e6
    assert not [a for _, a in elements if {"src", "srcset", "action"} & a.keys()]
    assert not [t for t, a in elements if t == "link" or a.get("href", "#")[0] != "#"]
    urls = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert urls == {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    # Names are data, never elements.
    assert HOSTILE in data["classes"] and "alert(1)" not in "".join(
        value or "" for _, attributes in elements for value in attributes.values()
    )
    assert [tag for tag, _ in elements].count("script") == 2
    counts = np.array(data["confusion"]["counts"])
    assert counts.sum() == data["evaluated"]["images"] == len(data["images"]) == 16
    cells = np.zeros_like(counts)
    for image in data["images"]:
        cells[image["label"], image["best"][0][0]] += 1
    np.testing.assert_array_equal(cells, counts)
    assert len(data["history"]) == 3 and data["judged_by"] == "test"
    assert data["robustness"] == [{"attack": "pgd", "accuracy": None}]
    assert data["omitted"] == []
    pictures = re.findall(r'"data:image/webp;base64,([^"]+)"', text)
    assert len(pictures) > 100 and len(pictures) == text.count('"data:')
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).load()
    names = [layer["name"] for layer in data["layers"]]
    for one in data["explained"]:
        assert [layer["name"] for layer in one["layers"]] == names[1:]
    nearest = data["neighbours"]
    assert (nearest["of"], nearest["among"]) == ("training", 24)
    for row in nearest["rows"]:
        distances = [one["distance"] for one in row]
        assert len(row) == 6 and distances == sorted(distances)
    assert (
        sum(layer["parameters"] for layer in data["layers"])
        == (data["about"]["parameters"])
    )


def test_the_page_leaves_out_what_is_not_there_and_says_so(run, tmp_path, command):
    out, model = tmp_path / "new" / "page.html", run / "model.keras"
    code, printed, _ = command("report", model, "--out", out)
    assert code == 0 and printed.count("Left out") == 2 and "--data" in printed
    _, _, data = written(out)
    assert len(data["omitted"]) == 2 and not {"history", "images"} & data.keys()
    # A run whose images are gone.
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"] = f"folder:{tmp_path / 'gone'}"
    (moved / "config.json").write_text(json.dumps(config))
    code, printed, _ = command("report", moved, "--out", out)
    assert code == 0 and "gone" in printed
    _, _, data = written(out)
    assert "gone" in data["omitted"][0] and data["history"] and "images" not in data
    # But what is asked for must be there.
    code, _, errors = command("report", moved, "--data", "folder:nowhere")
    assert code == 2 and "nowhere" in errors
    code, _, errors = command("report", run, "--out", tmp_path)
    assert code == 2 and "--out must be a file" in errors
    code, _, errors = command("report", run, "--robustness", tmp_path / "no.json")
    assert code == 2 and "cannot be read as JSON" in errors


@pytest.mark.slow
def test_the_page_works_in_a_browser(run, tmp_path, command):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("There is no Chromium to open the page with.")
    out = tmp_path / "page.html"
    assert command("report", run, "--out", out, "--explain", 4)[0] == 0
    text = out.read_text(encoding="utf-8")
    out.write_text(text.replace("</body>", f"{EXERCISE}</body>"), encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        + ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'browser'}"]
        + [out.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    ((_, body),) = [one for one in Parser(done.stdout).elements if one[0] == "body"]
    assert json.loads(body["data-found"]) == []


def test_neighbours_are_those_of_the_formula(run):
    from keras_alexnet.cli.common import run_dataset
    from keras_alexnet.training.run_directory import RunDirectory

    model = keras_alexnet.open_network(run)
    dataset = run_dataset(RunDirectory.open(run))
    split = dataset.test
    x = np.concatenate(
        [
            model.preprocess(decode(split.file(i), channels=3).numpy())
            for i in range(len(split))
        ]
    )
    features = keras_alexnet.feature_extractor(model, ["relu7"]).predict(x, verbose=0)
    features = features["relu7"].astype(np.float64)
    found = page.neighbours(model, split, np.array([2, 5]), split, np.arange(2))
    for position, row in zip((2, 5), found["rows"], strict=True):
        distances = np.sqrt(((features - features[position]) ** 2).sum(1))
        distances[position] = np.inf
        expected = np.sort(distances)[:6]
        np.testing.assert_allclose([one["distance"] for one in row], expected, 1e-4)
        assert split.name(position) not in [one["name"] for one in row]


def test_images_are_shown_from_every_cell(run, monkeypatch):
    from keras_alexnet.cli.common import run_dataset
    from keras_alexnet.evaluation import Evaluation
    from keras_alexnet.training.run_directory import RunDirectory

    monkeypatch.setattr(page, "SHOWN", 4)
    model = keras_alexnet.open_network(run)
    split = run_dataset(RunDirectory.open(run)).test
    sure = np.array([0.9, 0.8, 0.7, 0.1, 0.6, 0.2, 0.95, 0.3])
    evaluation = Evaluation(
        np.stack([sure, 1 - sure], axis=1),
        np.array([0, 0, 0, 0, 1, 1, 0, 1]),
        np.arange(8),
    )
    _, shown = page.images(model, split, evaluation)
    # Mistakes of each kind, then the surest right ones of each class.
    assert sorted(shown[:2]) == [3, 4] and sorted(shown[2:]) == [5, 6]
