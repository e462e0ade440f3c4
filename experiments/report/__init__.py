"""The report of a run: one self-contained HTML file about a run folder, for a browser and from disk.

    python -m experiments.report --workdir=runs/bc

writes ``runs/bc/report.html`` anew; of several runs, or a folder of them,

    python -m experiments.report runs/bc runs/iql --output=compare.html

compares them (``experiments.report.compare``). A page loads nothing: no scripts, fonts or images from elsewhere; its
Content-Security-Policy forbids them.
"""

from experiments.report.page import write_report

__all__ = ["write_report"]
