"""Speed: images per second of whole training steps, against the machine and against PyTorch.

Each side runs in a process of its own (`worker`), and windows of all sides alternate, so
that neither threads nor memory of one disturb another and noise falls on all alike.
"""
