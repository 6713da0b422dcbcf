"""How the phantom was trained, each part by itself: `python -m phantom.train.vae` and so on."""
