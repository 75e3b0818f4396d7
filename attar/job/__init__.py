"""What is to be distilled, with which prior, where: in words, and opened."""

from attar.job.job import Job
from attar.job.spec import FOR_PRIOR, Spec, named_classes

__all__ = ["FOR_PRIOR", "Job", "Spec", "named_classes"]
