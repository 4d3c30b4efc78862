"""What the families that translate images share in their settings; no JAX here."""

from __future__ import annotations

from dataclasses import dataclass

from anigan_jax.config import ComputeType, MethodSettings
from anigan_jax.errors import UserError


@dataclass(frozen=True)
class Translation(MethodSettings):
    """Base of the families that translate images of domain A to domain B."""

    dtype: ComputeType = "float32"
    """bfloat16: products of the networks in 16 bits, for GPUs and TPUs; parameters, statistics,
    losses and optimisers stay float32."""
    remat: bool = False
    """Compute the insides of G's residual blocks again in the backward pass: less memory, more
    time; for large images."""

    @property
    def size(self) -> int:
        return self.generator.size

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        return (("translate RUN PHOTO", "photos in the other domain"),)

    def inputs(self, pack, part: str = "train"):
        """The images of domain B."""
        return {"images_b": domain_b(pack, part)}

    def check(self) -> None:
        """Refuses networks whose sizes are wrong."""
        self.generator.check("method.generator")
        self.discriminator.check("method.discriminator")
        if self.generator.size != self.discriminator.size:
            raise UserError(
                f"method.generator.size {self.generator.size} differs from "
                f"method.discriminator.size {self.discriminator.size}"
            )


def domain_b(pack, part: str, what: str = "pixels"):
    """Rows of domain B; a pack of one domain is refused with what to do."""
    if f"{part}B" not in pack.manifest["parts"]:
        raise UserError(
            f"{pack.path} has one domain, and translation needs two: give --data.path A "
            "--data.path-b B, a folder with trainA and trainB, or a pack of two domains"
        )
    return pack.part(f"{part}B", what)
