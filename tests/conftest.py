"""What holds for every test: the libraries keep quiet, and none of them goes online."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
