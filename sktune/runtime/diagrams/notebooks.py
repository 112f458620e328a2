"""What notebooks show of fitted estimators, above scikit-learn's diagram."""

from sktune.runtime.diagrams.documentation import LinksToDocumentation

# The functions that write summaries. They stand in a layer that sees searches and their curves.
_WRITERS = []


def register_summary(write):
    """Let a function write the summaries of fitted estimators.

    Parameters
    ----------
    write : callable
        Takes an estimator, and returns HTML or an empty str.
    """
    _WRITERS.append(write)


class ShowsSummary(LinksToDocumentation):
    """A base class of estimators that notebooks show with a summary once they are fitted.

    It stands before scikit-learn's own bases: their diagram follows the summary.
    """

    @property
    def _repr_html_(self):
        # an AttributeError where scikit-learn is set to show text
        diagram = super()._repr_html_
        return lambda: self._write_summaries() + diagram()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" not in bundle:
            return bundle
        return bundle | {"text/html": self._write_summaries() + bundle["text/html"]}

    def _write_summaries(self):
        """Return the HTML of all that has something to say; of an unfitted estimator, none."""
        return "".join(write(self) for write in _WRITERS)
