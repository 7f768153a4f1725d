"""The laboratory behind scripts/phantom, scripts/train and scripts/evaluate.

Nothing in here is used by the running node.  The phantom half (tissue, anatomy,
canvas, spine, scanner, study) needs numpy, scipy and pydicom; the training half
needs PyTorch as well and is imported only by the scripts that train.
"""
