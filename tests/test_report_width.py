"""Pages on a telephone: nothing is wider than its 390 pixels, however long the names. A browser is asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import digits, preprocess, said, write_run

from orchard.models import create_model
from orchard.report import charts
from orchard.report.charts import Spot, spot_chart, write_page
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.report import write_report

WIDTH = 390
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAME = """<body style="margin: 0">
<iframe src="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => document.body.textContent = "width " + frame.contentDocument.documentElement.scrollWidth;
</script></body>"""


def width_of(page: Path) -> int:
    """How wide a page is that is shown WIDTH wide; a window of the browser itself has a least width."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(page=page.name, width=WIDTH))
    words = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --virtual-time-budget=2000 --dump-dom"
    done = subprocess.run(
        [str(BROWSER), *words.split(), f"--user-data-dir={page.parent / 'profile'}", frame.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"width (\d+)", done.stdout.rpartition("</script>")[2] or done.stdout)
    assert found, done.stdout + done.stderr
    return int(found[1])


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_report_of_long_names_fits_a_telephone(tmp_path: Path) -> None:
    classes = tuple(f"a_class_with_a_very_long_name_without_a_space_{n}" for n in range(20))
    task, split = ImageClassification(classes), digits()
    run = write_run(tmp_path / "run", task, said(split, 20, 30))
    page = write_report(
        run, objective=task, split=split, preprocess=preprocess(32, 1), predictions=said(split, 20, 30),
        model=create_model("lenet5", num_classes=20),
    )  # fmt: skip
    assert 0 < width_of(page) <= WIDTH
    page.write_text(page.read_text().replace("<main>", '<main><div style="width: 500px">wide</div>'))
    assert width_of(page) > WIDTH  # it is measured


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_comparison_of_long_names_fits_a_telephone(tmp_path: Path) -> None:
    names = [f"timm:a_model_with_a_very_long_name_without_a_space_{n}" for n in range(3)]
    measured = {
        "parameters": 10**8,
        "macs": 10**10,
        "latency_s": 0.1,
        "pictures_per_second": 1e4,
        "memory_bytes": 10**9,
    }
    row = {"accuracy": 0.5, "std": 0.01, "seeds": 2, **measured, "training_seconds": 1e4, "error": None}
    runs = [{"seed": n, "folder": "run", "split": "test", "accuracy": 0.5, "seconds": 1.0} for n in range(2)]
    rows = [{"model": name, **row, "runs": runs} for name in names]
    rows[2] |= {"error": "RuntimeError: " + "a_very_long_word_" * 9}
    hardware = {"cpu": "A processor with a long name", "threads": 2, "gpus": []}
    spots = [Spot(name, 1e9, 0.5, 0.4, 0.6) for name in names]
    page = write_page(
        tmp_path / "compare.html", Path(charts.__file__).with_name("compare.html.jinja"),
        result={"name": "digits", "seeds": 2, "metric": {"name": "accuracy"}, "device": "cpu", "hardware": hardware},
        rows=rows, chart=spot_chart("Accuracy", spots, x_label="x", y_label="y"),
        words="3 epochs of training", batch=64, metric="accuracy", best="highest", text=str,
    )  # fmt: skip
    assert 0 < width_of(page) <= WIDTH
