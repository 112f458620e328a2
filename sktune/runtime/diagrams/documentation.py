"""Links from the displays of estimators in notebooks to their pages of the documentation."""

# Where the documentation is published, without a slash at the end. While it is empty, displays
# have no link.
BASE_URL = ""


class LinksToDocumentation:
    """A base class of estimators whose HTML displays link to their page of the reference.

    scikit-learn reads these private names (``sklearn.utils._HTMLDocumentationLinkMixin``); its
    default leaves the link out. Subclasses outside sktune have none.
    """

    _doc_link_module = "sktune"

    @property
    def _doc_link_template(self):
        if not BASE_URL:
            return ""
        # scikit-learn fills the class's name in
        return BASE_URL + "/api/generated/sktune.{estimator_name}.html"
