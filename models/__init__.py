"""What computes: pure torch, OpenCV and engine wrappers; no Ray."""
