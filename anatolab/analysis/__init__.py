"""What is looked at after training: exact variances of samplers, and what a model attends to."""

from anatolab.analysis.sampling_variance import exact_variance

__all__ = ["exact_variance"]
