"""GAN training in JAX: pure functions, exact reruns, one compiled step."""

__version__ = "0.1.0"
