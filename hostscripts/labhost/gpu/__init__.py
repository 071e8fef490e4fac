"""The NVIDIA driver of the server and of its containers."""
