"""Filling the template: the page as one str."""

import base64
import hashlib
from dataclasses import dataclass, field
from importlib import resources

import numpy as np

from sktune.inspection.advice.finding import SEVERITIES
from sktune.inspection.effects import importance
from sktune.inspection.report.asked import describe_asked
from sktune.inspection.report.candidates import list_candidates, list_groups
from sktune.inspection.report.drawing import draw_curves, draw_effect, draw_shares
from sktune.inspection.report.recipe import write_recipe
from sktune.inspection.report.results import (
    find_baseline,
    list_best_parameters,
    list_other_scores,
    read_best,
    read_sealed_test,
)
from sktune.inspection.report.setting import list_seeds, list_versions
from sktune.runtime.optional import import_jinja


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Parameters
    ----------
    svg : str
        Safe markup.
    caption : str
    notes : list of str, default=[]
        What the picture leaves out.
    """

    svg: str
    caption: str
    notes: list = field(default_factory=list)


def render_page(record, search, title, findings, X, y):
    """Return the whole page: a str.

    Parameters
    ----------
    record : SearchRecord
    search : estimator object or dict
        As it was given to the report.
    title : str
    findings : list of Finding, or None
        None where no checks were run.
    X, y : table and column that were searched on, or None
    """
    jinja2 = import_jinja("report")
    # Jinja brings it
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = read_template("style.css")
    script = read_template("script.js")
    return environment.get_template("page.html").render(
        title=title,
        record=record,
        policy=_write_policy(style, script),
        # the two files are ours; their hashes must be those of what stands in the page
        style=Markup(style),
        script=Markup(script),
        asked=describe_asked(record, search),
        best=read_best(record),
        other_scores=list_other_scores(record, search),
        best_parameters=list_best_parameters(record),
        top=_find_top(record),
        baseline=find_baseline(record, search, X, y),
        sealed=read_sealed_test(record, search),
        findings=None if findings is None else sort_findings(findings),
        curves=_mark(_draw_all_curves(record)),
        effects=_mark(_draw_all_effects(record.comparable)),
        shares=_mark(_draw_importance(record, search)),
        table=list_candidates(record),
        n_failed=int(record.has_failed.sum()),
        n_left=int(record.is_spared.any(axis=1).sum()),
        fusion=list_groups(record),
        versions=list_versions(),
        seeds=list_seeds(search),
        code=write_recipe(search),
    )


def sort_findings(findings):
    """Return findings with the problems first; of one severity, in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def read_template(name):
    """Return the text of a file of this package's folder of templates."""
    folder = resources.files("sktune.inspection.report").joinpath("templates")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _write_policy(style, script):
    """Return a Content-Security-Policy that allows this style and this script and nothing else."""
    parts = ["default-src 'none'", f"style-src {_hash(style)}", f"script-src {_hash(script)}"]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text):
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _mark(figures):
    """Return figures whose SVG, which was escaped as it was made, is not escaped again."""
    from markupsafe import Markup

    return [Figure(Markup(f.svg), f.caption, f.notes) for f in figures]


def _find_top(record):
    """Return the candidate of the best score if the search has chosen another; else None."""
    scores = record.mean_scores
    if record.best_index is None or not np.isfinite(scores).any():
        return None
    top = int(np.nanargmax(scores))
    return None if scores[record.best_index] == scores[top] else top


def _draw_all_curves(record):
    if record.curves is None:
        return []
    figures = []
    for name, label in (("train_loss", "training loss"), ("valid_loss", "validation loss")):
        means, _ = record.curves.mean_over_splits(name)
        if np.isfinite(means).any():
            svg, notes = draw_curves(record, name, label)
            figures.append(Figure(svg, f"{label.capitalize()}, mean over the folds", notes))
    return figures


def _draw_all_effects(record):
    if not np.isfinite(record.mean_scores).any():
        return []
    figures = []
    for parameter in record.parameters.values():
        svg, notes = draw_effect(record, parameter)
        caption = parameter.name
        if parameter.label != parameter.name:
            caption = f"{parameter.name} ({parameter.label})"
        figures.append(Figure(svg, caption, notes))
    return figures


def _draw_importance(record, search):
    """Return the figure of the importance in a list; an empty one where there is none to draw."""
    record = record.comparable
    if not np.isfinite(record.mean_scores).any() or not record.parameters:
        return []
    found = importance(search, record.metric)
    if not np.isfinite(list(found.shares.values())).all():
        return [Figure("", found.verdict)]
    svg, notes = draw_shares(found)
    return [Figure(svg, found.verdict, notes)]
