"""The pool of former fakes in plain Python."""


class Pool:
    """junyanz/pytorch-CycleGAN `util/image_pool.py`, with the draws given."""

    def __init__(self, size):
        self.size, self.images = size, []

    def query(self, images, swaps, places):
        shown = []
        for image, swap, place in zip(images, swaps, places, strict=True):
            if len(self.images) < self.size:
                self.images.append(image)
                shown.append(image)
            elif swap:
                shown.append(self.images[place])
                self.images[place] = image
            else:
                shown.append(image)
        return shown
