"""The servers themselves: adding, deploying, testing and inspecting them."""
